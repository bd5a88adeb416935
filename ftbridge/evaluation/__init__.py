"""The evaluator: candidates complete the same items, graders score the completions, and statistics compare them in pairs.

items · candidates · baselines · retrieval     what is asked, of whom, with which prompt
generate                                       completions, appended as they come, resumed after a crash
score · notes · document                       scores, what to know about them, and the evaluation document
results · grade_cache                          both on disk: written once, read by everyone
statistics · verdict · length_control          intervals, tests, and the four verdicts with their wording
calibration · agreement · families             judges held beside people's labels and beside each other
perplexity · preference · classification       measures beside graders
retention/                                     what the base model could do and the tuned one still can
engine                                         complete, measure, grade: what a run and an evaluation outside one share
job_data                                       a spec, its prepared data, and what a provider would make of both
matching                                       the items that several runs share
compare                                        two runs, paired by item
standalone                                     an evaluation outside a run
spending                                       tokens and money of a run, against its budget
"""
