//! Calibration text to token blocks, and the forward passes that fill an observation of a mixture-of-experts model
