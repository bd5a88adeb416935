"""LlamaIndex's OpenAILike and OpenAI, its agent, and its index over embeddings."""

from features import BASE_URL, BOTH, HELLO, MODEL, WEATHER, feature, get_weather, report
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

where = {"api_base": BASE_URL, "api_key": "any", "max_retries": 0}
model = OpenAILike(model=MODEL, is_chat_model=True, is_function_calling_model=True, context_window=4096, **where)
tool = FunctionTool.from_defaults(get_weather)
hello = [ChatMessage(role="user", content=HELLO)]


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def calls(question, **more):
    return model.get_tool_calls_from_response(model.chat_with_tools([tool], question, **more))


@feature
def chat():
    assert model.chat(hello).message.content == HELLO


@feature
def chat_openai():
    assert OpenAI(model=MODEL, **where).chat(hello).message.content == HELLO


@feature
def stream():
    assert "".join(piece.delta or "" for piece in model.stream_chat(hello)) == HELLO


@feature
async def asynchronous():
    assert (await model.achat(hello)).message.content == HELLO


@feature
def logprobs():
    reply = OpenAILike(model=MODEL, is_chat_model=True, additional_kwargs={"logprobs": True}, **where).chat(hello)
    assert reply.raw.choices[0].logprobs.content


@feature
def call_auto():
    assert calls(WEATHER)[0].tool_kwargs == {"city": "Oslo"}


@feature
def call_required():
    assert calls(HELLO, tool_required=True)[0].tool_name == "get_weather"


@feature
def call_named():
    assert calls(HELLO, tool_choice="get_weather")[0].tool_name == "get_weather"


@feature
def call_parallel():
    assert len(calls(BOTH, allow_parallel_tool_calls=True)) == 2


@feature
def call_streamed():
    *_, last = model.stream_chat_with_tools([tool], WEATHER)
    assert model.get_tool_calls_from_response(last)[0].tool_kwargs == {"city": "Oslo"}


@feature
async def call_agent():
    agent = FunctionAgent(tools=[get_weather], llm=model, streaming=True)
    assert str(await agent.run(WEATHER)) == "sunny in Oslo"


@feature
def schema():
    assert isinstance(model.as_structured_llm(Person).chat(hello).raw, Person)


@feature
def schema_by_format():
    strict = OpenAI(model="gpt-4o-mini", strict=True, **where)
    assert isinstance(strict.as_structured_llm(Person).chat(hello).raw, Person)


@feature
def responses():
    assert OpenAIResponses(model=MODEL, **where).chat(hello).message.content == HELLO


@feature
def responses_streamed():
    pieces = OpenAIResponses(model=MODEL, **where).stream_chat(hello)
    assert "".join(piece.delta or "" for piece in pieces) == HELLO


@feature
def responses_call():
    newer = OpenAIResponses(model=MODEL, **where)
    reply = newer.chat_with_tools([tool], WEATHER)
    assert newer.get_tool_calls_from_response(reply)[0].tool_kwargs == {"city": "Oslo"}


@feature
def completions():
    assert OpenAILike(model=MODEL, is_chat_model=False, **where).complete(HELLO).text == HELLO


@feature
def embeddings():
    result = OpenAILikeEmbedding(model_name=MODEL, **where)
    texts = [Document(text="the lamp is red"), Document(text="a ticket about a refund")]
    index = VectorStoreIndex.from_documents(texts, embed_model=result, transformations=[])
    (best,) = index.as_retriever(similarity_top_k=1).retrieve("which lamp is red")
    assert "lamp" in best.text


report("llama-index-llms-openai-like")
