from promptseg.inference.caching import LRUCache


class TestLRUCache:
    def test_the_least_recently_used_go_first(self):
        kept = LRUCache(6, len)
        kept.put("a", "xx")
        kept.put("b", "xx")
        kept.put("c", "xx")
        assert kept.get("a") == "xx"
        kept.put("d", "xx")
        assert kept.get("b") is None
        assert [kept.get(k) for k in "acd"] == ["xx"] * 3
        assert kept.total == 6

    def test_what_is_spared_stays(self):
        kept = LRUCache(4, len)
        kept.put("a", "xx")
        kept.put("b", "xxxx", spared=["a"])
        assert len(kept) == 2
        assert kept.get("a") == "xx"
        kept.put("c", "x")
        assert kept.get("b") is None

    def test_putting_again_does_not_count_twice(self):
        kept = LRUCache(10, len)
        kept.put("a", "xx")
        kept.put("a", "xxx")
        assert (kept.total, len(kept)) == (3, 1)
