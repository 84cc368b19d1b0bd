"""The bundled model about ten pictures: most answers are right. Questions and answers of easy-VQA are its training
set's own; those of the emoji are their names (pictures/README.md)."""
from conftest import image_part, picture, text_part

CASES = [
    ("easy-vqa-1044.png", "What shape does the image contain?", "rectangle"),
    ("easy-vqa-550.png", "What color is the rectangle?", "black"),
    ("easy-vqa-3128.png", "What is the color of the triangle?", "green"),
    ("easy-vqa-3286.png", "What color is the shape?", "brown"),
    ("easy-vqa-3471.png", "What color is the triangle?", "blue"),
    ("twemoji-1f1e6-1f1ea.png", "Which country does this flag belong to?", "united arab emirates"),
    ("twemoji-1f1e6-1f1f2.png", "Which country does this flag belong to?", "armenia"),
    ("twemoji-1f1e6-1f1f9.png", "Which country does this flag belong to?", "austria"),
    ("twemoji-1f436.png", "What is this?", "dog"),
    ("twemoji-1f981.png", "What is this?", "lion"),
]


def test_ten_pictures(server):
    answers = []
    for name, question, right in CASES:
        r = server.chat([image_part(picture(name)), text_part(question)], temperature=0, max_tokens=16)
        assert r.status == 200, r.body
        answers.append((name, right, r.json()["choices"][0]["message"]["content"]))
    good = [a for a in answers if a[1] in a[2].lower()]
    assert len(good) >= 8, answers
