"""The simulator: OpenAI's API with a scripted engine and fault injection.

    scenario.py · fault.py     what the user writes: behaviour, jobs, answers; faults
    engine.py                  the engine that plays it
    walks.py                   jobs walk through their states, by seconds or by looks
    training.py                what a job that trains nothing shows: data checks, settled numbers, a loss curve
    answers.py · instances.py  the script's answers, an echo, or JSON of a schema
    inject.py · changed.py     faults, between the server and the network: before the effect, and of the answer
    control.py                 /simulator: what was asked, the clock, another scenario, a fresh start
    account.py · seeding.py · gate.py · organization.py    a scripted account
    replay.py                  a recorded exchange, played again

It is also what the tests of the client run against. Each thing that a service does and a client must bear has one place:

    a service that ...                                          is written as
    moves jobs on, fails, or ends them                          jobs.walk, by jobs.clock; jobs.error
    keeps no metadata, tells no figures, encodes results        jobs.keeps_metadata · metrics · base64_results
    loads a new model late, bears few chats, is slow            chat.not_loaded · at_once · first_token_seconds
    drops, cuts, delays, repeats or redirects                   a fault: reset · cut · slow · twice · redirect
    takes no more jobs, refuses a parameter or a prompt         a fault: training_not_available · error with body or model
    says other things than it published                         a fault: alter (files' states, metadata of batches, no choices)
    lists late, out of order, or without end                    a fault: lag · shuffle · endless
    fails at some lines of a batch                              a fault on LINE /chat/completions
"""
