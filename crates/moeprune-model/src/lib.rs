//! Forward passes of mixture-of-experts decoder layers, one layer at a time, and greedy generation, on candle
