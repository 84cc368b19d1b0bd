"""The bundled model is asked about ten pictures with known answers (tests/e2e/pictures/README.md): a wrong path anywhere
between the socket and the last layer shows here as nonsense. The model is small and may miss one or two."""
import base64

import pytest
from conftest import PICTURES, Stream

QUESTIONS = [
    ("easy-vqa-1044.png", "what shape does the image contain?", "rectangle"),
    ("easy-vqa-3286.png", "what color is the shape?", "brown"),
    ("easy-vqa-3128.png", "what is the color of the triangle?", "green"),
    ("easy-vqa-550.png", "does the image not contain a gray shape?", "yes"),
    ("easy-vqa-3471.png", "is there a green shape?", "no"),
    ("twemoji-1f1e6-1f1ea.png", "Which country does this flag belong to?", "united arab emirates"),
    ("twemoji-1f1e6-1f1f2.png", "Which country does this flag belong to?", "armenia"),
    ("twemoji-1f1e6-1f1f9.png", "Which country does this flag belong to?", "austria"),
    ("twemoji-1f436.png", "What is this?", "dog"),
    ("twemoji-1f981.png", "What is this?", "lion face"),
]


def parts(name, question):
    data = base64.b64encode((PICTURES / name).read_bytes()).decode()
    return [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}, {"type": "text", "text": question}]


def answer(server, name, question):
    r = server.chat(parts(name, question), temperature=0, max_tokens=24)
    assert r.status == 200, r.body
    return r.json()["choices"][0]["message"]["content"].strip()


def test_most_answers_are_right(server):
    answers = [(answer(server, name, q), right) for name, q, right in QUESTIONS]
    good = sum(a == right for a, right in answers)
    assert good >= 8, answers


@pytest.mark.tsan
def test_streamed_text_equals_the_whole(server):
    for name, q, _ in QUESTIONS[:3]:
        body = {"messages": [{"role": "user", "content": parts(name, q)}], "temperature": 0, "max_tokens": 24, "stream": True}
        with Stream(server, body) as s:
            chunks = [e for e in s.events() if e != "[DONE]"]
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
        assert text.strip() == answer(server, name, q)


def test_the_picture_decides(server):
    """One question, several pictures in flight at once: no picture reaches another's answer."""
    import concurrent.futures

    flags = [q for q in QUESTIONS if q[1].startswith("Which country")]
    alone = [answer(server, name, q) for name, q, _ in flags]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda i: answer(server, *flags[i % 3][:2]), range(24)))
    assert together == [alone[i % 3] for i in range(24)]


def test_a_second_asking_finds_the_first_ones_pages(server):
    """Same answer, token by token, whether the prompt was computed or found; a salt of one's own finds nothing."""
    def ask(name, **fields):
        r = server.chat(parts(name, "what is the color of the triangle?"), temperature=0, max_tokens=24, logprobs=True,
                        return_token_ids=True, **fields)
        assert r.status == 200, r.body
        usage = r.json()["usage"]
        c = r.json()["choices"][0]
        return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"], (c["logprobs"], c["token_ids"])

    cold, n, answer_cold = ask("easy-vqa-3128.png", cache_salt="first")
    warm, _, answer_warm = ask("easy-vqa-3128.png", cache_salt="first")
    salted, _, answer_salted = ask("easy-vqa-3128.png", cache_salt="second")
    other, _, _ = ask("easy-vqa-550.png", cache_salt="first")
    assert (cold, salted) == (0, 0) and warm == (n - 1) // 16 * 16 and other < 16
    assert answer_cold == answer_warm == answer_salted
    text = server.get("/metrics").body.decode()
    counts = {line.split("{")[0]: float(line.split()[-1]) for line in text.splitlines() if line.startswith("vlmd:prefix")}
    assert counts["vlmd:prefix_cache_queries_total"] > counts["vlmd:prefix_cache_hits_total"] >= warm
