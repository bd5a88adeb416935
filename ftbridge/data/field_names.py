"""What the fields of records are called: the names that mean a prompt, a completion and so on in data that people have."""

from __future__ import annotations


def _words(names: str) -> frozenset[str]:
    return frozenset(names.split())


FIELDS: dict[str, frozenset[str]] = {
    "prompt": _words(
        "prompt question query instruction input problem user request human utterance textinput userinput usermessage "
        "userprompt customer inputtext message q ask inputs"
    ),
    "completion": _words(
        "completion answer response output reply ideal target solution assistant bot expected expectedoutput textoutput "
        "modeloutput gpt outputtext assistantresponse botresponse a idealanswer targets referenceanswer groundtruth"
    ),
    "input": _words("context passage document background article knowledge"),
    "system": _words("system systemprompt systemmessage sysprompt systeminstruction preprompt"),
    "chosen": _words("chosen preferred accepted better winner responsechosen chosenresponse betterresponse good"),
    "rejected": _words(
        "rejected rejectedresponse responserejected dispreferred worse loser worseresponse nonpreferred bad"
    ),
    "messages": _words("messages conversation dialog dialogue chat turns"),
}
"""Names of fields, in small letters without spaces and hyphens, by what they mean. The first that a record has is taken."""

BOOKKEEPING = _words(
    "id uid uuid guid idx index row metadata meta source dataset origin url license split lang language category topic task "
    "domain tags created createdat timestamp date datetime hash customid subcategory subtopic subdomain "
    "model modelname generator length turn numturns tokencount numtokens version annotator author"
)
"""Names of fields that say where an example is from, never what it teaches."""


JUDGEMENTS = _words(
    "score scores overallscore qualityscore quality rating ratings stars grade verdict reward rewards rank "
    "feedback userfeedback humanfeedback vote votes upvotes downvotes thumb thumbs thumbsup thumbsdown "
    "label ktotag ktolabel like likes liked isliked disliked desirable isdesirable isgood helpful helpfulness "
    "correct iscorrect correctness isaccepted"
)
"""Names of fields that may say how good a completion is: without them, bad completions are trained like good ones."""


def plain_name(name: str) -> str:
    """A field's name in small letters, without spaces, hyphens and underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def is_bookkeeping(name: str) -> bool:
    """Whether a field of this name says where an example is from, and never what it teaches."""
    return plain_name(name) in BOOKKEEPING or name.lower().endswith(("_id", "-id")) or name.endswith("Id")


def is_judgement(name: str) -> bool:
    """Whether a field of this name may say how good a completion is."""
    return plain_name(name) in JUDGEMENTS


def meaning_of(name: str) -> str | None:
    """What a field of this name holds: prompt, completion, input, system, chosen, rejected, messages; None if unknown."""
    plain = plain_name(name)
    return next((meaning for meaning, names in FIELDS.items() if plain in names), None)
