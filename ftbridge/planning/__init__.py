"""Know before you pay: tokens, money, memory, time, dates and advice, reckoned in a second and without torch.

plan.py     the whole: a spec in, a `Plan` out        hosted_plan.py · local_plan.py   its two halves
workload.py what there is to do, in tokens            tokens.py   what is read and what is trained
money.py    dated prices, and what they come to       memory.py   a model's memory from its config alone
pace.py     hours, from this machine's own runs or published figures
advice.py   what a person who knows would say, each with its evidence
"""
