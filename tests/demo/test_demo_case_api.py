"""Cases through the API, as a program works on them."""

import numpy as np
import pytest
from cases_kit import case_server, make_cases, missed
from demo_kit import running

from promptseg.volume import read

gradio_client = pytest.importorskip("gradio_client", reason="the demo needs the `demo` extra")


@pytest.fixture
def client(tmp_path):
    project = make_cases(tmp_path / "place")
    server = case_server(project, tmp_path / "files")
    blocks, address = running(server)
    yield gradio_client.Client(address, verbose=False), project
    blocks.close()
    server.close()


class TestApi:
    def test_a_case_from_opening_to_accepting(self, client):
        client, project = client
        state = client.predict("", "ann", "", api_name="/case_open")
        assert (state["case"], state["propagated"]) == ("case0", True)
        place = missed(None, project, "case0")
        client.predict([float(v) for v in place], True, 1, api_name="/add_point")
        client.predict("graph_cut", api_name="/refine")
        assert client.predict(api_name="/case_accept")["case"] is None
        found = client.predict("", api_name="/cases")
        assert found["cases"] == {"new": 3, "open": 0, "accepted": 1, "rejected": 0}
        assert found["accepted"][0]["who"] == "ann"
        assert str(project.parent) not in str(found)
        mask = next((project / "masks").glob("case0.*"))
        assert np.asarray(read(mask).data)[place] == 1

    def test_what_is_refused_says_why(self, client):
        client, project = client
        wrong = gradio_client.exceptions.AppError
        with pytest.raises(wrong, match="there is no project"):
            client.predict("", "ann", str(project), api_name="/case_open")
        with pytest.raises(wrong, match="no case"):
            client.predict("../secret", "ann", "", api_name="/case_open")
        with pytest.raises(wrong, match="open a case first"):
            client.predict(api_name="/case_accept")
        with pytest.raises(wrong, match="no version 9"):
            client.predict("loop", 9, api_name="/revert")
        state = client.predict("case2", "ann", "loop", api_name="/case_open")
        assert state["case"] == "case2"
        client.predict("blurred", api_name="/case_reject")
        assert client.predict("loop", api_name="/cases")["list"]["case2"] == "rejected"
