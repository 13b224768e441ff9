/** The parts of the page that need no page: import them from `kws.js` beside it to listen in a page of your own. */
export { parseArtefact } from "./artefact";
export { Decoder, detectorConfig, eventJson, type Detection, type DetectorConfig } from "./decoder";
export { KwsError } from "./errors";
export { LogMel } from "./logmel";
export { Resampler } from "./resample";
export { sha256 } from "./sha256";
export { Stream, StreamModel } from "./stream";
