"""The simulator: OpenAI's API with a scripted engine and fault injection.

scenario.py    what the user writes: behaviour, jobs, answers, faults
engine.py      jobs walk through their states on a clock; chats are answered from the script
training.py    what a job that trains nothing shows: data checks, settled numbers, a loss curve
answers.py     the script's answers, or an echo
inject.py      faults, between the server and the network
control.py     /simulator: what was asked, the clock, other faults
"""
