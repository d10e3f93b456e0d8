"""Exit heads: what turns an intermediate layer's hidden state into tokens. Format, training, confidence,
measurement."""
