"""inspect_ai: evaluations with its OpenAI provider and its openai-api provider, with functions and log probabilities."""

import os
import tempfile

from features import BOTH, HELLO, MODEL, PERSON, WEATHER, feature, report
from features import get_weather as weather_of
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, ResponseSchema, get_model
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool
from inspect_ai.util import JSONSchema

os.environ.update(INSPECT_LOG_DIR=tempfile.mkdtemp(prefix="ftbridge-inspect-"), INSPECT_DISPLAY="none")
os.environ["FTBRIDGE_API_KEY"] = "any"  # the provider of that name; its address is in FTBRIDGE_BASE_URL
CHAT, RESPONSES = f"openai-api/ftbridge/{MODEL}", f"openai/{MODEL}"


@tool
def get_weather():
    async def execute(city: str) -> str:
        """The weather of a city.

        Args:
            city: The city.
        """
        return weather_of(city)

    return execute


def accuracy(model, question, target, *solvers, scorer=includes, **more):
    task = Task([Sample(input=question, target=target)], solver=[*solvers, generate()], scorer=scorer())
    (log,) = eval(task, model=model, max_retries=0, **more)
    assert log.status == "success", log.error
    return log.results.scores[0].metrics["accuracy"].value


@feature
def chat():
    assert accuracy(CHAT, HELLO, "there", scorer=match, temperature=0, max_tokens=20, seed=1) == 1


@feature
def chat_choices():
    assert accuracy(CHAT, HELLO, "there", epochs=2, num_choices=2) == 1


@feature
def call_auto():
    assert accuracy(CHAT, WEATHER, "sunny in Oslo", use_tools(get_weather())) == 1


@feature
def call_parallel():
    assert accuracy(CHAT, BOTH, "sunny in Lima", use_tools(get_weather())) == 1


@feature
def logprobs():
    async def check():
        output = await get_model(CHAT, config=GenerateConfig(logprobs=True, top_logprobs=1)).generate(HELLO)
        assert "".join(token.token for token in output.choices[0].logprobs.content) == HELLO

    return check()


@feature
def schema():
    async def check():
        shape = ResponseSchema(name="person", json_schema=JSONSchema(**PERSON), strict=True)
        output = await get_model(CHAT).generate(
            [ChatMessageUser(content=HELLO)], config=GenerateConfig(response_schema=shape)
        )
        assert '"name"' in output.completion

    return check()


@feature
def responses():
    assert accuracy(RESPONSES, HELLO, "there", model_args={"responses_api": True}) == 1


@feature
def responses_call():
    result = accuracy(RESPONSES, WEATHER, "sunny in Oslo", use_tools(get_weather()), model_args={"responses_api": True})
    assert result == 1


report("inspect-ai")
