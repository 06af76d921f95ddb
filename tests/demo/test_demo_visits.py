import sys
import threading
import weakref
from time import monotonic

import pytest
from demo_kit import bright_server, tubes

from promptseg.demo import looking
from promptseg.demo import visits as visits_module
from promptseg.demo.heap import bound_heaps
from promptseg.demo.texts import TEXTS, say
from promptseg.demo.visits import Visits
from promptseg.errors import PromptsegError, VolumeError


def fill(visits, key):
    visit = visits.of(key)
    looking.open_volume(visit, tubes(), f"{key}.nii.gz", visits)
    return visit


class TestVisits:
    def test_each_key_has_its_own(self):
        visits = Visits()
        one, two = fill(visits, "one"), fill(visits, "two")
        assert visits.of("one") is one
        assert one.volume is not two.volume

    def test_no_key_no_visit(self):
        with pytest.raises(VolumeError, match="reload"):
            Visits().of(None)

    def test_the_least_recently_used_goes_first(self):
        visits = Visits(most=2)
        first = visits.of("one")
        visits.of("two")
        visits.of("one")
        visits.of("three")
        assert visits.of("one") is first
        assert len(visits) == 2

    def test_memory_is_bounded(self):
        need = fill(Visits(), "x").nbytes
        visits = Visits(max_bytes=int(2.5 * need))
        kept = [fill(visits, str(n)) for n in range(4)]
        assert visits.nbytes <= visits.max_bytes
        assert visits.of("3") is kept[3]
        assert visits.of("0") is not kept[0]

    def test_an_image_too_large_for_the_server_drops_nobody(self):
        need = fill(Visits(), "x").nbytes
        visits = Visits(max_bytes=int(1.5 * need))
        kept = fill(visits, "one")
        with pytest.raises(VolumeError, match="this server has"):
            visits.make_room(visits.of("two"), 2 * need)
        assert visits.of("one") is kept

    def test_who_computes_is_not_dropped(self):
        need = fill(Visits(), "x").nbytes
        visits = Visits(max_bytes=int(1.5 * need), idle_seconds=0)
        kept = fill(visits, "one")
        with kept.exclusive(long_running=True):
            visits.sweep()
            with pytest.raises(VolumeError, match="others"):
                fill(visits, "two")
            assert visits.of("one") is kept

    def test_idle_visits_end_and_stop_computing(self):
        visits = Visits(idle_seconds=60)
        old, new = fill(visits, "old"), fill(visits, "new")
        old.last_used = monotonic() - 61
        visits.sweep()
        assert old.cancel.is_set()
        assert visits.of("new") is new
        assert visits.of("old").volume is None

    def test_many_threads(self, tmp_path):
        server = bright_server(tmp_path, visits=Visits(most=8))
        wrong = []

        def use(key):
            for _ in range(200):
                if server.visits.of(key).key != key:
                    wrong.append(key)

        threads = [threading.Thread(target=use, args=(str(n),)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(server.visits) == 8


class TestTexts:
    @pytest.mark.parametrize("key", sorted(TEXTS))
    def test_both_languages_take_the_same_values(self, key):
        english, chinese = TEXTS[key]
        places = [{part.split("}")[0].split(":")[0] for part in text.split("{")[1:]} for text in
                  (english, chinese)]  # fmt: skip
        assert places[0] == places[1]
        assert chinese

    def test_values_are_filled_in(self):
        assert say("zh", "target", number=3) == "目标 3"


class TestModels:
    def test_a_plain_network_is_shared_but_embeddings_never(self, tmp_path):
        models = bright_server(tmp_path).models
        one, two = models.segmenter("default", None), models.segmenter("default", None)
        assert one.backbone is two.backbone
        assert one.cache is not two.cache

    def test_adapters_and_words_get_a_network_of_their_own(self, tmp_path):
        models = bright_server(tmp_path).models
        shared = models.segmenter("default", None)
        assert models.own("default", None).backbone is not shared.backbone

    def test_only_what_is_offered_is_loaded(self, tmp_path):
        models = bright_server(tmp_path).models
        for model, adapter in (("/etc/passwd", None), ("default", "../../evil")):
            with pytest.raises(PromptsegError, match="not offered"):
                models.segmenter(model, adapter)


class TestFiles:
    def test_they_go_with_the_visit_and_do_not_pile_up(self, tmp_path):
        server = bright_server(tmp_path)
        visit = server.visits.of("one")
        made = [server.new_folder(visit) for _ in range(20)]
        assert made[-1].is_dir()
        assert len(list(tmp_path.iterdir())) == 12
        server.visits.drop("one")
        assert list(tmp_path.iterdir()) == []


class TestMemory:
    @pytest.mark.parametrize("end", ["drop", "sweep", "most"])
    def test_an_ended_visit_is_gone_before_memory_is_given_back(self, end, monkeypatch):
        visits = Visits(most=1)
        image = weakref.ref(fill(visits, "one").volume)
        held = []
        monkeypatch.setattr(visits_module, "give_back_memory", lambda: held.append(image()))
        if end == "drop":
            visits.drop("one")
        elif end == "sweep":
            visits.idle_seconds = -1.0
            visits.sweep()
        else:
            visits.of("two")
        assert held == [None]

    def test_the_sweeper_gives_back_what_a_late_request_held(self, monkeypatch):
        visits, again = Visits(), threading.Event()
        fill(visits, "one")
        monkeypatch.setattr(visits_module, "give_back_memory", lambda: None)
        visits.drop("one")
        monkeypatch.setattr(visits_module, "give_back_memory", again.set)
        visits.keep_sweeping(every=0.01)
        assert again.wait(5)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="settings of glibc")
    def test_heaps_are_bounded_where_the_library_can(self):
        assert bound_heaps()
