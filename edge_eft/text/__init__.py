"""Messages to tokens and tokens to text: prompt formats, tokenizers, vocabularies."""
