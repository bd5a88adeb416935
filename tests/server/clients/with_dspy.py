"""DSPy: signatures through its chat and JSON adapters, streaming, functions, and an optimizer over examples."""

from typing import Literal

import dspy
from features import BASE_URL, HELLO, MODEL, WEATHER, feature, get_weather, report

where = {"api_base": BASE_URL, "api_key": "any", "cache": False, "num_retries": 0}
model = dspy.LM(f"openai/{MODEL}", **where)


class Label(dspy.Signature):
    """Label a ticket."""

    ticket: str = dspy.InputField()
    label: Literal["refund", "question"] = dspy.OutputField()


@feature
def chat():
    assert model(HELLO) == [HELLO]


@feature
def chat_choices():
    assert model(HELLO, n=2, temperature=0.5) == [HELLO] * 2


@feature
def schema():
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        assert dspy.Predict(Label)(ticket="I want my money back.").label in ("refund", "question")


@feature
def schema_reasoned():
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        assert dspy.ChainOfThought(Label)(ticket="I want my money back.").label in ("refund", "question")


@feature
def logprobs():
    result = model(HELLO, logprobs=True)
    assert "".join(token.token for token in result[0]["logprobs"].content) == HELLO


@feature
def call_auto():
    tool = dspy.Tool(get_weather)
    (result,) = model(WEATHER, tools=[tool.format_as_litellm_function_call()])
    assert result["tool_calls"][0].function.name == "get_weather"


@feature
def call_agent():
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        agent = dspy.ReAct("question -> answer", tools=[get_weather], max_iters=2)
        assert agent(question=WEATHER).answer is not None


@feature
def responses():
    other = dspy.LM(f"openai/{MODEL}", model_type="responses", **where)
    assert HELLO in str(other(HELLO)[0])


@feature
def completions():
    other = dspy.LM(f"text-completion-openai/{MODEL}", model_type="text", **where)
    assert HELLO in other(HELLO)[0]


@feature
def embeddings():
    result = dspy.Embedder(f"openai/{MODEL}", api_base=BASE_URL, api_key="any", caching=False)([HELLO, "other"])
    assert result.shape[0] == 2


@feature
async def asynchronous():
    assert await model.acall(HELLO) == [HELLO]


report("dspy")
