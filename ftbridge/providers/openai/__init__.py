"""The OpenAI provider: the client side of OpenAI's fine-tuning dialect, for every service that speaks it."""
