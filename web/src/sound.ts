/** The audio graph: microphone or recording, through the audio thread, to the worker. */
import { KwsError, messageOf } from "./errors";
import type { Request } from "./protocol";

const REASONS: Record<string, string> = {
  NotAllowedError:
    "The microphone was denied. Allow it in the browser’s site settings (beside the address), then press Listen; or play a recording below.",
  NotFoundError: "No microphone was found. Plug one in and press Listen; or play a recording below.",
  OverconstrainedError: "That microphone is gone. Choose another one, or plug it in again, then press Listen.",
  NotReadableError:
    "The microphone is there but gives no sound: another program may hold it, or the system forbids it. Free it and press Listen; or play a recording below.",
};
const INSECURE =
  "Browsers give microphone and audio thread only to pages from https or from this computer itself. Open the page as http://127.0.0.1 or over https; sound files can be dropped below all the same.";

export class Sound {
  private node: AudioWorkletNode | undefined;
  private source: AudioNode | undefined;
  private tracks: MediaStreamTrack[] = [];
  private turn = 0; // a later one has precedence over those still being opened

  private constructor(
    readonly context: AudioContext | undefined,
    private readonly send: (message: Request, transfer: Transferable[]) => void,
    private readonly onTrouble: (message: string, isOver: boolean) => void,
  ) {}

  /** Load all that listening needs; nothing starts. `onTrouble` is told when something goes wrong while listening. */
  static async prepare(
    send: (message: Request, transfer: Transferable[]) => void,
    onTrouble: (message: string, isOver: boolean) => void,
  ): Promise<Sound> {
    if (!isSecureContext) return new Sound(undefined, send, onTrouble);
    const context = new AudioContext({ latencyHint: "balanced" });
    const sound = new Sound(context, send, onTrouble);
    await context.audioWorklet.addModule(new URL("capture.js", document.baseURI));
    sound.node = new AudioWorkletNode(context, "capture", {
      channelCount: 1,
      channelCountMode: "explicit",
      channelInterpretation: "speakers",
    });
    sound.node.connect(context.destination); // it gives silence, but what leads nowhere is not run
    context.onstatechange = () => {
      if (sound.source && context.state !== "running" && context.state !== "closed") {
        onTrouble("The system has paused the sound (a call, another program?). Press Listen to go on.", true);
      }
    };
    return sound;
  }

  get isOn(): boolean {
    return this.source !== undefined;
  }

  /** Begin with the microphone of this id, or the default one. Throws KwsError if there is none to be had. */
  async microphone(deviceId: string): Promise<void> {
    if (!this.context || !navigator.mediaDevices) throw new KwsError(INSECURE);
    this.stop();
    const turn = this.turn;
    let stream: MediaStream;
    try {
      const which = deviceId ? { deviceId: { exact: deviceId } } : {};
      const plain = { ...which, echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      throw new KwsError(REASONS[name] ?? `The microphone cannot be opened (${messageOf(error)}). Play a recording below.`);
    }
    if (turn !== this.turn) return stream.getTracks().forEach((track) => track.stop());
    await this.context.resume();
    this.tracks = stream.getTracks();
    for (const track of this.tracks) {
      track.onended = () =>
        this.onTrouble("The microphone is gone: unplugged, or its permission withdrawn. Plug it in and press Listen.", true);
      track.onmute = () => this.onTrouble("The system has muted the microphone, or another page took it. Unmute it there.", false);
    }
    this.begin(this.context.createMediaStreamSource(stream));
  }

  /** Play a recording to the loudspeaker and to the worker; `onEnd` comes when all of it was played. */
  async play(bytes: ArrayBuffer, onEnd: () => void): Promise<void> {
    if (!this.context) throw new KwsError(INSECURE);
    this.stop();
    const turn = this.turn;
    const source = this.context.createBufferSource();
    source.buffer = await this.context.decodeAudioData(bytes.slice(0));
    if (turn !== this.turn) return;
    await this.context.resume();
    source.connect(this.context.destination);
    source.onended = () => setTimeout(() => this.source === source && onEnd(), 150); // the last batch is on its way
    this.begin(source);
    source.start(this.context.currentTime + 0.1);
  }

  /** End; `withTail` lets a word at the end be found. */
  stop(withTail = false): void {
    this.turn++;
    if (!this.source) return;
    const source = this.source;
    this.source = undefined;
    source.disconnect();
    if (source instanceof AudioBufferSourceNode) source.stop();
    for (const track of this.tracks) {
      track.onended = track.onmute = null;
      track.stop();
    }
    this.tracks = [];
    this.node?.port.postMessage(undefined);
    this.send({ kind: "stop", withTail }, []);
    void this.context?.suspend();
  }

  private begin(source: AudioNode): void {
    const { port1, port2 } = new MessageChannel();
    this.send({ kind: "start", rate: this.context!.sampleRate, port: port2 }, [port2]);
    this.node!.port.postMessage(port1, [port1]);
    this.source = source;
    source.connect(this.node!);
  }
}
