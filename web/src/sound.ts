/** The audio graph: microphone or recording, through the audio thread, to the worker. */
import { KwsError, messageOf } from "./errors";
import type { Request } from "./protocol";

const REASONS: Record<string, string> = {
  NotAllowedError:
    "Access to the microphone was denied. Allow it in the browser’s site settings (beside the address) and press Listen, or play a recording below.",
  NotFoundError: "No microphone was found. Plug one in and press Listen, or play a recording below.",
  OverconstrainedError: "That microphone is no longer connected. Choose another one, or plug it in again, then press Listen.",
  NotReadableError:
    "The microphone is there but gives no sound: another program may be using it, or the system may be blocking it. Free it and press Listen, or play a recording below.",
};
const INSECURE =
  "Browsers only let a page listen or play if it comes over https or from this computer. Open it as http://127.0.0.1 or over https. You can still drop sound files below.";

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
        onTrouble("The system paused the sound, perhaps for a call or another program. Press Listen to go on.", true);
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
      throw new KwsError(REASONS[name] ?? `The microphone cannot be opened (${messageOf(error)}). You can play a recording below.`);
    }
    if (turn !== this.turn) return stream.getTracks().forEach((track) => track.stop());
    await this.context.resume();
    this.tracks = stream.getTracks();
    for (const track of this.tracks) {
      track.onended = () =>
        this.onTrouble("The microphone is gone: it was unplugged, or access to it was withdrawn. Plug it in or allow it, then press Listen.", true);
      track.onmute = () => this.onTrouble("The system muted the microphone, or another page is using it. Unmute it, or close that page.", false);
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
