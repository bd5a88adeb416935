"""pydantic-ai, whose default for typed output is a forced call."""

from features import BOTH, HELLO, MODEL, WEATHER, feature, get_weather, report
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

chats, responding = OpenAIChatModel(MODEL), OpenAIResponsesModel(MODEL)


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@feature
async def chat():
    result = await Agent(chats, instructions="Be short.").run(HELLO)
    assert result.output == HELLO
    assert result.usage.total_tokens > 0


@feature
async def chat_history():
    agent = Agent(chats)
    first = await agent.run(HELLO)
    assert (await agent.run("again", message_history=first.all_messages())).output == "again"


@feature
async def stream():
    async with Agent(chats).run_stream(HELLO) as result:
        assert [piece async for piece in result.stream_text()][-1] == HELLO


@feature
async def call_auto():
    assert (await Agent(chats, tools=[get_weather]).run(WEATHER)).output == "sunny in Oslo"


@feature
async def call_required():
    assert isinstance((await Agent(chats, output_type=Person).run(HELLO)).output, Person)


@feature
async def call_named():
    assert isinstance((await Agent(chats, output_type=ToolOutput(Person, name="person")).run(HELLO)).output, Person)


@feature
async def call_parallel():
    assert (await Agent(chats, tools=[get_weather]).run(BOTH)).output == "sunny in Lima"


@feature
async def call_streamed():
    async with Agent(chats, output_type=Person).run_stream(HELLO) as result:
        assert isinstance(await result.get_output(), Person)


@feature
async def schema():
    assert isinstance((await Agent(chats, output_type=NativeOutput(Person)).run(HELLO)).output, Person)


@feature
async def schema_json_mode():
    # The prompt's schema is not seen by a script: what counts is that the request is taken and JSON comes back.
    class Text(BaseModel):
        text: str

    assert (await Agent(chats, output_type=PromptedOutput(Text)).run(HELLO)).output.text


@feature
async def responses():
    assert (await Agent(responding, instructions="Be short.").run(HELLO)).output == HELLO


@feature
async def responses_streamed():
    async with Agent(responding).run_stream(HELLO) as result:
        assert [piece async for piece in result.stream_text()][-1] == HELLO


@feature
async def responses_call():
    assert (await Agent(responding, tools=[get_weather]).run(WEATHER)).output == "sunny in Oslo"
    assert isinstance((await Agent(responding, output_type=Person).run(HELLO)).output, Person)


@feature
async def responses_schema():
    assert isinstance((await Agent(responding, output_type=NativeOutput(Person)).run(HELLO)).output, Person)


@feature
async def embeddings():
    result = await Embedder(f"openai:{MODEL}").embed_query(HELLO)
    assert len(result.embeddings[0]) > 1


report("pydantic-ai-slim")
