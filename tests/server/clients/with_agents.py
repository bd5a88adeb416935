"""OpenAI's Agents SDK, whose default is the Responses API."""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
)  # fmt: skip
from features import BOTH, HELLO, MODEL, WEATHER, feature, get_weather, report
from openai import AsyncOpenAI
from pydantic import BaseModel

# One client, in the one event loop of all features: its connections belong to the loop that opened them.
client = AsyncOpenAI(max_retries=0)
chats, responding = OpenAIChatCompletionsModel(MODEL, client), OpenAIResponsesModel(MODEL, client)


class Person(BaseModel):
    name: str
    age: int


async def run(model, question=HELLO, **more):
    return (
        await Runner.run(Agent(name="assistant", instructions="Be short.", model=model, **more), question)
    ).final_output


def tools(choice="auto"):
    settings = ModelSettings(tool_choice=choice)
    return {
        "tools": [function_tool(get_weather)],
        "model_settings": settings,
        "tool_use_behavior": "stop_on_first_tool",
    }


async def streamed(model):
    result = Runner.run_streamed(Agent(name="assistant", model=model), HELLO)
    events = [event async for event in result.stream_events()]
    texts = [
        e.data.delta for e in events if getattr(getattr(e, "data", None), "type", "") == "response.output_text.delta"
    ]
    assert "".join(texts) == result.final_output == HELLO


@feature
async def chat():
    assert await run(chats) == HELLO


@feature
async def stream():
    await streamed(chats)


@feature
async def call_auto():
    assert await run(chats, WEATHER, **tools()) == "sunny in Oslo"


@feature
async def call_required():
    assert "sunny in" in await run(chats, **tools("required"))


@feature
async def call_named():
    assert "sunny in" in await run(chats, **tools("get_weather"))


@feature
async def call_parallel():
    result = await Runner.run(Agent(name="assistant", model=chats, tools=[function_tool(get_weather)]), BOTH)
    assert result.final_output == "sunny in Lima"


@feature
async def schema():
    assert isinstance(await run(chats, output_type=Person), Person)


@feature
async def responses():
    assert await run(responding) == HELLO


@feature
async def responses_streamed():
    await streamed(responding)


@feature
async def responses_call():
    assert await run(responding, WEATHER, **tools()) == "sunny in Oslo"
    assert "sunny in" in await run(responding, **tools("required"))


@feature
async def responses_call_result():
    result = await Runner.run(Agent(name="assistant", model=responding, tools=[function_tool(get_weather)]), WEATHER)
    assert result.final_output == "sunny in Oslo"


@feature
async def responses_schema():
    assert isinstance(await run(responding, output_type=Person), Person)


@feature
async def responses_continued():
    agent = Agent(name="assistant", model=responding)
    first = await Runner.run(agent, HELLO)
    assert (await Runner.run(agent, "again", previous_response_id=first.last_response_id)).final_output == "again"


@feature
async def responses_session():
    session, agent = SQLiteSession("one"), Agent(name="assistant", model=responding)
    await Runner.run(agent, HELLO, session=session)
    assert (await Runner.run(agent, "again", session=session)).final_output == "again"
    assert len(await session.get_items()) == 4


@feature
async def responses_handoff():
    other = Agent(name="other", model=responding)
    first = Agent(
        name="first", model=responding, handoffs=[other], model_settings=ModelSettings(tool_choice="required")
    )
    assert (await Runner.run(first, HELLO)).last_agent.name == "other"


report("openai-agents")
