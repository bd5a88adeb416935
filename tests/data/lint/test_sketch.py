"""Sketches find near duplicates: texts that are alike share a band, others hardly ever do."""

import random

import numpy as np
import pytest

from ftbridge.data.lint.sketch import SHORTEST, similarity, sketches

_random = random.Random(3)
_WORDS = [f"{_random.choice(['card', 'bank', 'überweisung', 'カード'])}{number}" for number in range(3_000)]


def sketched(count):
    return [_random.choice(_WORDS) for _ in range(count)]


def share(one, other):
    return bool((one == other).any())


def test_texts_that_are_alike_share_a_band_and_others_do_not():
    texts = [sketched(120) for _ in range(300)]
    changed = [[*text[:60], "other", *text[61:]] for text in texts]
    one, other = sketches([" ".join(text) for text in texts]), sketches([" ".join(text) for text in changed])

    assert min(similarity(" ".join(a), " ".join(b)) for a, b in zip(texts, changed, strict=True)) > 0.9
    assert sum(map(share, one, other)) >= 290
    assert sum(share(one[row], other[row - 1]) for row in range(300)) == 0


def test_case_and_white_space_make_no_difference_and_neighbours_neither():
    text = " ".join(sketched(40))
    alone = sketches([text])[0]
    among = sketches(
        [" ".join(sketched(9)), "", "  \n", text.upper().replace(" ", "\n\t "), "short one", " ".join(sketched(30))]
    )

    np.testing.assert_array_equal(alone, among[3])
    assert not among[1].any()
    assert not among[2].any()
    assert not among[4].any()


def test_texts_too_short_to_compare_have_none():
    texts = [" ".join(sketched(SHORTEST - 1)), " ".join(sketched(SHORTEST)), "\ud83d " * 20]
    assert sketches(texts).any(axis=1).tolist() == [False, True, True]
    assert sketches([]).shape[0] == sketches([""]).any() == 0


NEAR = {
    "Chinese": (
        "我们的仓库每个工作日上午九点开始处理订单，下午四点之前付款的订单当天发出，您会收到带有跟踪号码的邮件（编号{}）。",
        "请把护照和两张照片带到三楼的窗口，填好表格以后等候叫号，办理大约需要二十分钟。",
    ),
    "Japanese": (
        "ご注文の商品は営業日の午前九時から順番に発送いたします。午後四時までのお支払いは当日の発送となります（番号{}）。",
        "パスポートと写真を二枚お持ちになり、三階の窓口で用紙に記入してからお待ちください。",
    ),
    "Thai": (
        "คลังสินค้าของเราเริ่มจัดการคำสั่งซื้อทุกวันทำการเวลาเก้าโมงเช้า คำสั่งซื้อที่ชำระก่อนสี่โมงเย็นจะส่งในวันเดียวกัน หมายเลข{}",
        "กรุณานำหนังสือเดินทางและรูปถ่ายสองใบไปที่ช่องบริการชั้นสาม กรอกแบบฟอร์มแล้วรอเรียกหมายเลข",
    ),
    "Khmer": (
        "ឃ្លាំងរបស់យើងចាប់ផ្តើមដំណើរការការបញ្ជាទិញរៀងរាល់ថ្ងៃធ្វើការនៅម៉ោងប្រាំបួនព្រឹកលេខ{}",
        "សូមយកលិខិតឆ្លងដែននិងរូបថតពីរសន្លឹកទៅបញ្ជរជាន់ទីបី",
    ),
    "Chinese and English": (
        "请在 settings 页面打开 dark mode 选项，然后重新启动应用程序，您的账户和所有聊天记录都会保留下来，编号{}。",
        "请先安装 driver，再连接打印机，等到指示灯变绿以后开始打印第一页。",
    ),
}


@pytest.mark.parametrize("language", NEAR)
def test_texts_without_spaces_have_sketches_of_their_characters(language):
    near, other = NEAR[language]
    one, two = near.format(1), near.format(2)
    bands = sketches([one, two, other])

    assert bands.any(axis=1).all()
    assert similarity(one, two) > 0.85 > 0.3 > similarity(one, other)
    assert (bands[0] == bands[1]).any()
    assert not (bands[0] == bands[2]).any()


def test_short_texts_of_characters_get_no_sketch_and_accents_change_nothing():
    assert not sketches(["谢谢您的帮助"]).any()
    assert similarity("é è à ç ñ ü ö ß", "É È À Ç Ñ Ü Ö ß") == 1.0
