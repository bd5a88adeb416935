"""LangChain's ChatOpenAI, OpenAI and OpenAIEmbeddings, and its agent."""

from features import ASK_WEATHER, BOTH, HELLO, MODEL, WEATHER, feature, get_weather, report
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

model = ChatOpenAI(model=MODEL, max_retries=0)
newer = ChatOpenAI(model=MODEL, max_retries=0, use_responses_api=True)


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def with_tools(**more):
    return model.bind_tools([get_weather], **more)


@feature
def chat():
    reply = model.invoke(HELLO)
    assert reply.content == HELLO
    assert reply.usage_metadata["total_tokens"] > 0


@feature
def stream():
    assert "".join(chunk.content for chunk in model.stream(HELLO)) == HELLO


@feature
def stream_usage():
    chunks = list(ChatOpenAI(model=MODEL, stream_usage=True).stream(HELLO))
    assert any(chunk.usage_metadata for chunk in chunks)


@feature
async def asynchronous():
    assert [reply.content for reply in await model.abatch([HELLO, "other"])] == [HELLO, "other"]


@feature
def logprobs():
    reply = ChatOpenAI(model=MODEL, logprobs=True, top_logprobs=1).invoke(HELLO)
    assert reply.response_metadata["logprobs"]["content"][0]["logprob"] <= 0


@feature
def call_auto():
    assert with_tools().invoke(WEATHER).tool_calls[0]["args"] == {"city": "Oslo"}


@feature
def call_required():
    assert with_tools(tool_choice="any").invoke(HELLO).tool_calls


@feature
def call_named():
    assert with_tools(tool_choice="get_weather", strict=True).invoke(HELLO).tool_calls


@feature
def call_parallel():
    assert len(with_tools().invoke(BOTH).tool_calls) == 2
    assert len(with_tools(parallel_tool_calls=False).invoke(BOTH).tool_calls) == 1


@feature
def call_streamed():
    complete = None
    for chunk in with_tools().stream(BOTH):
        complete = chunk if complete is None else complete + chunk
    assert [call["args"]["city"] for call in complete.tool_calls] == ["Oslo", "Lima"]


@feature
def call_result():
    reply = with_tools().invoke(WEATHER)
    result = ToolMessage(get_weather("Oslo"), tool_call_id=reply.tool_calls[0]["id"])
    assert with_tools().invoke([HumanMessage(WEATHER), reply, result]).content == "sunny in Oslo"


@feature
def call_agent():
    state = create_agent(model, [get_weather]).invoke({"messages": ASK_WEATHER})
    assert state["messages"][-1].content == "sunny in Oslo"


@feature
def schema():
    assert isinstance(model.with_structured_output(Person).invoke(HELLO), Person)


@feature
def schema_by_call():
    assert isinstance(model.with_structured_output(Person, method="function_calling").invoke(HELLO), Person)


@feature
def schema_json_mode():
    result = model.with_structured_output(None, method="json_mode").invoke(f"JSON of {HELLO}")
    assert isinstance(result, dict)


@feature
def schema_streamed():
    *_, last = model.with_structured_output(Person).stream(HELLO)
    assert last is not None


@feature
def responses():
    assert newer.invoke(HELLO).text == HELLO


@feature
def responses_streamed():
    assert "".join(chunk.text for chunk in newer.stream(HELLO)) == HELLO


@feature
def responses_call():
    bound = newer.bind_tools([get_weather])
    reply = bound.invoke(WEATHER)
    result = ToolMessage(get_weather("Oslo"), tool_call_id=reply.tool_calls[0]["id"])
    assert bound.invoke([HumanMessage(WEATHER), reply, result]).text == "sunny in Oslo"


@feature
def responses_schema():
    assert isinstance(newer.with_structured_output(Person).invoke(HELLO), Person)


@feature
def responses_continued():
    other = ChatOpenAI(model=MODEL, use_responses_api=True, use_previous_response_id=True)
    reply = other.invoke(HELLO)
    assert other.invoke([HumanMessage(HELLO), reply, HumanMessage("and again")]).text == "and again"


@feature
def completions():
    assert OpenAI(model=MODEL, max_retries=0).invoke(HELLO) == HELLO


@feature
def embeddings():
    # Without a tokenizer of its own (it would fetch OpenAI's): texts go as they are.
    result = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, max_retries=0)
    assert len(result.embed_query(HELLO)) > 1
    assert len(result.embed_documents([HELLO, "other"])) == 2


report("langchain-openai")
