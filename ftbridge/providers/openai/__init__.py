"""The OpenAI provider: a client of every service that speaks OpenAI's fine-tuning API.

lower · request · preflight · probe     what is sent, and what is checked before anything is sent
client · errors · targets · calendar    connections, faults by kind, services and their last days
jobs/                                   uploads and jobs, each paid once; following; results
sampling/                               completions, one by one or as a batch
"""
