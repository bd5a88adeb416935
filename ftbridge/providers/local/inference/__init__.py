"""The one engine that generates: for evaluation, `chat`, the server and reinforcement rollouts alike.

    request ─▶ line ─▶ batch ───────── one pass for every row ─────────▶ Step: a token, its log-probability, new text
                        ├─ join    prompts that wait are read, between two tokens of the others
                        ├─ step    one more token for each row
                        └─ leave   rows that ended, were cancelled, or make room when memory runs out

`engine`      Request, Engine, Generation: the whole interface. `Engine(model, tokenizer).generate([Request(…)])`, or `add`
              and `advance` for who streams. It knows tokens, not messages.
`batch`       rows on a model: reading prompts, stepping, scoring.
`columns`     keys and values in blocks that are allocated ahead, a slot for each row; `alone` holds rows of models whose caches
              are more than that, and runs them one after the other.
`row_limit`   how many rows run at once after memory ran out.
`prefixes`    beginnings that rows share, computed once: a tree of tokens with keys and values.
`adapters`    LoRA adapters by row: rows of one pass may have different ones, or none.
`packed`      16-bit weights laid out for the processor once, while a model generates on a CPU.
`sampling`    logits to tokens, with settings and a seed of each row's own.   `shape`  JSON by construction.
`text`        tokens to text as they come, and stop strings.
`loaded`      a base model with tokenizer, renderer and engine, as a job's request names it.
`completions` the evaluator's process: prompts in, completions or scores out.
`process`     the server's process; `host` is its end in the server, `requests` the lines between them, `intake`, `prompting`,
              `channels` and `replies` turn chats into requests and completions into replies.

Only `requests` and `host` are imported outside a process of torch's own.
"""
