/** Runs on the audio thread: sends the samples it is given to the worker, a few milliseconds at a time. */
const BATCH = Math.ceil(0.02 * sampleRate);

class Capture extends AudioWorkletProcessor {
  private batch = new Float32Array(BATCH);
  private filled = 0;
  private to: MessagePort | undefined;

  constructor() {
    super();
    this.port.onmessage = ({ data }: MessageEvent<MessagePort>) => {
      this.to = data;
      this.filled = 0;
    };
  }

  process([[samples]]: Float32Array[][]): boolean {
    for (let taken = 0; this.to && samples && taken < samples.length; ) {
      const part = samples.subarray(taken, taken + BATCH - this.filled);
      this.batch.set(part, this.filled);
      this.filled += part.length;
      taken += part.length;
      if (this.filled < BATCH) break;
      this.to.postMessage({ samples: this.batch, arrived: Date.now() }, [this.batch.buffer]);
      this.batch = new Float32Array(BATCH);
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
