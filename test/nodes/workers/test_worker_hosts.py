"""The list of machines: who is who, and what is refused."""

import socket

import pytest

from scal3r_ros.nodes.workers.hosts import node_prefix, parse_hosts


def test_machines_and_their_numbers():
    hosts = parse_hosts(" alpha:0, 10.0.0.2:4 ,gamma,delta:0")
    assert dict(hosts.gpus) == {"alpha": 0, "10.0.0.2": 4, "gamma": 1, "delta": 0}
    assert (hosts.first, hosts.total, hosts.address) == ("alpha", 5, "alpha")
    assert hosts.others == ["10.0.0.2", "gamma"]
    assert parse_hosts(str(hosts)) == hosts
    assert parse_hosts("alpha:3,beta:0").address == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a list"),
        ("a:2,,b:1", "not a list"),
        ("a:-1", "not a list"),
        ("a:1,a:2", "names a twice"),
        ("localhost:1,b:2", "not localhost"),
        ("a:0,b:0", "no GPU at all"),
    ],
)
def test_other_texts_are_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_hosts(text)


def test_this_machine_is_found_by_its_name_or_as_told(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "beta.lan")
    assert parse_hosts("alpha:1,beta:1").own("") == "beta"
    assert parse_hosts("alpha:1,beta.lan:1").own("") == "beta.lan"
    assert parse_hosts("localhost:2").own("") == "localhost"
    assert parse_hosts("10.0.0.1:1,10.0.0.2:1").own("10.0.0.2") == "10.0.0.2"
    with pytest.raises(ValueError, match=r"\(beta.lan\) is not in workers:=10.0.0.1:1; add it"):
        parse_hosts("10.0.0.1:1").own("")
    with pytest.raises(ValueError, match="host:="):
        parse_hosts("alpha:1,beta:1").own("bet")


def test_namespaces_are_valid_names_and_differ_by_machine():
    assert node_prefix("beta-1.lan") == "gpu_beta_1_lan_"
    assert node_prefix("10.0.0.2") == "gpu_10_0_0_2_"
