"""Run by `test_langchain` as a script, beside LangChain: what its OpenAI chat model makes of a door, in JSON.

Nothing of this repository can be imported here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

SAID = [
    SystemMessage("Be brief."),
    HumanMessage("Who is Ahab?"),
    AIMessage("A captain."),
    HumanMessage("Tell me all of him."),
]


def model(url: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=url, api_key="none", model="chat", temperature=0, max_tokens=8, max_retries=0, **more
    )


def told(message: Any) -> dict[str, Any]:
    return {
        "text": message.content,
        "id": message.id,
        "usage": message.usage_metadata,
        "response": message.response_metadata,
    }


def whole(url: str) -> Any:
    return told(model(url, seed=7, logprobs=True).invoke(SAID))


def streamed(url: str) -> Any:
    chunks = list(model(url, stream_usage=True).stream(SAID))
    gathered = chunks[0]
    for chunk in chunks[1:]:
        gathered += chunk
    return told(gathered) | {"chunks": len(chunks)}


def awaited(url: str) -> Any:
    async def both() -> Any:
        answer = await model(url).ainvoke(SAID)
        pieces = [chunk.content async for chunk in model(url).astream(SAID)]
        return [answer.content, "".join(pieces)]

    return asyncio.run(both())


def chained(url: str) -> Any:
    """A prompt, the model, a parser; two at once."""
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "Who is {name}?")])
    chain = prompt | model(url) | StrOutputParser()
    return chain.batch([{"name": "Ahab"}, {"name": "Ishmael"}])


def stopped(url: str, stop: str) -> Any:
    return told(model(url).invoke(SAID, stop=[stop]))


def early(url: str, depth: int) -> Any:
    extra = {"helios": {"depth": depth}}
    return told(model(url, extra_body=extra).invoke(SAID))


def refused(url: str) -> Any:
    found = {}
    for name, changes in {
        "model": {"model": "other"},
        "top_p": {"top_p": 7},
        "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    }.items():
        try:
            model(url).bind(**changes).invoke(SAID)
        except openai.APIStatusError as error:
            found[name] = [[kind.__name__ for kind in type(error).__mro__], error.param]
    return found


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps({what: globals()[what](**arguments) for what, arguments in asked.items()}))
