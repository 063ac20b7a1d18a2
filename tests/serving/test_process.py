"""`imgrec serve` as a process: it says where, answers, and ends in order."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")]


def test_sigterm_under_load_answers_what_was_accepted_and_ends_with_0(serve, images):
    served = serve("--drain-seconds", "1")
    outcomes, ready_after = [], []
    stop = threading.Event()

    def client():
        connection = served.connect()
        while not stop.is_set():
            try:
                connection.connect()
            except OSError:
                return  # the service is gone: nothing was accepted
            while connection.sock is not None:
                try:
                    connection.request("POST", "/predict", images[0], {"Content-Type": "image/png"})
                    response = connection.getresponse()
                    response.read()
                    outcomes.append(response.status)
                except (OSError, http.client.HTTPException) as error:
                    outcomes.append(repr(error))
                    connection.close()

    clients = [threading.Thread(target=client) for _ in range(6)]
    for thread in clients:
        thread.start()
    time.sleep(1)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    ready_after.append(served.ask()[0])
    code, out, err = served.end()
    stop.set()
    for thread in clients:
        thread.join()
    assert code == 0
    assert ready_after == [503]
    assert len(outcomes) > 20
    assert set(outcomes) == {200}
    assert "Traceback" not in err
    logged = [json.loads(line) for line in out.splitlines()]
    assert sum(line["endpoint"] == "predict" for line in logged) == len(outcomes)


def test_a_log_that_nobody_reads_delays_nobody(serve):
    served = serve("--drain-seconds", "0")
    with contextlib.closing(served.connect()) as connection:
        statuses = set()
        for _ in range(1000):  # their lines are more than a pipe holds
            connection.request("GET", "/v2/health/ready")
            response = connection.getresponse()
            statuses.add((response.status, response.read()))
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert statuses == {(200, b'{"ready":true}')}


def test_ctrl_c_ends_at_once_with_0(serve):
    served = serve("--drain-seconds", "60")
    assert served.ask()[0] == 200
    served.process.send_signal(signal.SIGINT)
    assert served.end()[0] == 0


def test_the_token_of_a_file_is_asked_for(serve, images, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    served = serve("--token-file", str(tmp_path / "token"), "--quiet")
    assert served.ask("POST", "/predict", images[0])[0] == 401
    assert served.ask("POST", "/predict", images[0], {"Authorization": "Bearer secret"})[0] == 200
    served.process.send_signal(signal.SIGINT)
    assert served.end() == (0, "", "")


def test_the_token_of_the_environment_is_asked_for(serve, images):
    served = serve(IMGREC_SERVE_TOKEN="secret")
    assert served.ask("POST", "/predict", images[0])[0] == 401


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"nonsense\r\n\r\n", 400, "not an HTTP request"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, 431, "the head of the request is too large"),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413, "the body is larger than"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line_of_json(serve, sent, status, said):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == status
        assert said in json.load(response)["error"]
    assert served.ask()[0] == 200


@pytest.mark.slow
def test_a_client_that_does_not_end_its_head_is_let_go(serve):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert connection.recv(65536) == b""


def test_an_address_that_is_taken_and_a_bundle_that_is_damaged(imgrec_process, tiny_run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = imgrec_process("serve", tiny_run, "--port", port)
    assert done.returncode == 2
    assert f"error: 127.0.0.1:{port}: Address already in use" in done.stderr
    done = imgrec_process("serve", tmp_path)
    assert (done.returncode, "neither a run nor a bundle" in done.stderr) == (2, True)
    done = imgrec_process("serve", tiny_run, "--token-file", tmp_path / "none")
    assert (done.returncode, "cannot be read as a token" in done.stderr) == (2, True)


@pytest.fixture
def imgrec_process():
    def run(*words):
        command = [sys.executable, "-m", "imgrec_cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run
