"""A simulator of AWS IAM and STS for tests; nothing here is AWS.

moto keeps the state: users, keys, devices, policies. In front of it stand what a rotation needs and moto
lacks: `auth.py` (signatures, keys that are inactive or not known yet, policies with their conditions) and
`gaps.py` (password policy, codes of MFA devices, the credential report, root users of member accounts). This
file has the door, the faults that tests ask for, and the control interface under /sim.

usage: simulator.py          listens on a free loopback port and prints it; ends with its standard input
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
from urllib.parse import parse_qsl, urlencode

os.environ.setdefault("MOTO_ACCOUNT_ID", "123456789012")

from werkzeug.formparser import parse_form_data  # noqa: E402,F401  (moto's server needs it loaded)
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402
from werkzeug.test import EnvironBuilder, run_wsgi_app  # noqa: E402

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402

import auth  # noqa: E402
import gaps  # noqa: E402
from answers import Refusal, answer, httpdate  # noqa: E402


class Simulator:
    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        # moto is not made for threads; waiting happens outside of this lock.
        self.lock = threading.RLock()
        self.calls = []
        self.faults = []
        # The last answer to each question, which a stale list repeats.
        self.answers = {}
        # Calls that a test holds: how many, and when they go on.
        self.held = 0
        self.gone_on = threading.Event()
        self.keys = auth.Keys()
        self.world = gaps.World(self.ask_moto, self.keys)

    # --- the door

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "/")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        if path.startswith("/sim/"):
            status, headers, content = self.control(path[len("/sim/"):], json.loads(body or b"{}"))
        else:
            status, headers, content = self.api(environ, body)
        if status == 0:
            # The connection ends without an answer.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            status = 500
        start_response(f"{status} .", [*headers, ("Content-Length", str(len(content))), ("Date", httpdate(self.world.now()))])
        return [content]

    def api(self, environ, body):
        params = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = params.get("Action", "-")
        fault = self.fault(action)
        kind, wait = fault.get("kind"), fault.get("ms", 0) / 1000
        record = {"action": action, "by": "-", "status": 0}
        if kind == "slow":
            time.sleep(wait)
        if kind == "down":
            return self.end(record, (0, [], b""))
        if kind == "hold-before":
            self.hold()
            return self.end(record, (0, [], b""))
        try:
            if kind == "throttle":
                raise Refusal(400, "Throttling", "Rate exceeded")
            if kind == "error":
                raise Refusal(500, "ServiceFailure", "An internal error", sender=False)
            if kind == "refuse":
                raise Refusal(403, "AccessDenied", "explicit deny in a service control policy")
            if kind == "arrives-late":
                # The client has gone when it happens.
                time.sleep(wait)
            with self.lock:
                result = self.carry_out(environ, params, body, record)
                if kind == "stale":
                    result = self.answers.get(body, result)
                self.answers[body] = result
        except Refusal as refusal:
            result = refusal.answer()
        except Exception:
            traceback.print_exc()
            result = Refusal(500, "ServiceFailure", "the simulator failed", sender=False).answer()
        if kind == "answers-late":
            time.sleep(wait)
        if kind == "hold-after":
            self.hold()
        if kind in ("lost", "hold-after"):
            return self.end(record, (0, [], b""))
        return self.end(record, result)

    def hold(self):
        """The client waits here, until the test lets it go on or it is killed."""
        with self.lock:
            self.held += 1
            gone_on = self.gone_on
        gone_on.wait()

    def end(self, record, result):
        record["status"] = result[0]
        with self.lock:
            self.calls.append(record)
        return result

    def carry_out(self, environ, params, body, record):
        caller = self.keys.authenticate(environ, body, self.world)
        record["by"] = caller.name
        service = caller.service
        record["action"] = f"{service}:{params['Action']}"
        resource = self.world.resource(caller, params)
        caller.authorize(record["action"], resource, params, self.world.now())
        result = self.world.answer(caller, params)
        if result is None:
            result = self.forward(environ, body)
            self.world.after(caller, params, result)
        return result

    def forward(self, environ, body):
        headers = {"Authorization": environ["HTTP_AUTHORIZATION"], "Host": environ["HTTP_HOST"]}
        built = EnvironBuilder(path="/", method="POST", data=body, headers=headers,
                               content_type="application/x-www-form-urlencoded")
        content, status, out = run_wsgi_app(self.moto, built.get_environ())
        content = b"".join(content)
        return int(status.split()[0]), [("Content-Type", out.get("Content-Type", "text/xml"))], content

    def ask_moto(self, params, service="iam"):
        """A call in moto's own account, by nobody in particular; gives status and content."""
        scope = f"Credential=AKIASIMULATOR0000000/20260101/us-east-1/{service}/aws4_request"
        environ = {"HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0", "HTTP_HOST": "localhost"}
        version = "2010-05-08" if service == "iam" else "2011-06-15"
        status, _, content = self.forward(environ, urlencode({"Version": version, **params}).encode())
        return status, content.decode()

    def fault(self, action):
        with self.lock:
            for fault in self.faults:
                if fault["action"] in ("*", action) and fault["times"] > 0:
                    if fault.get("skip", 0) > 0:
                        fault["skip"] -= 1
                        continue
                    fault["times"] -= 1
                    return fault
        return {}

    # --- the control interface: JSON in, JSON out

    def control(self, verb, ask):
        with self.lock:
            try:
                reply = getattr(self, "sim_" + verb.replace("-", "_"))(ask)
            except Refusal as refusal:
                return refusal.status, [], json.dumps({"refused": refusal.code}).encode()
        return 200, [("Content-Type", "application/json")], json.dumps(reply).encode()

    def sim_fault(self, ask):
        """{"action", "kind", "times", "ms", "skip"}; {} clears all, and lets what is held end without an answer."""
        if not ask:
            self.faults.clear()
            self.gone_on.set()
            self.held, self.gone_on = 0, threading.Event()
        else:
            self.faults.append({"times": 1, **ask})
        return {}

    def sim_held(self, ask):
        """How many calls are held."""
        return {"held": self.held}

    def sim_calls(self, ask):
        """All calls since the last time this was asked with {"clear": true}."""
        calls = list(self.calls)
        if ask.get("clear"):
            self.calls.clear()
        return calls

    def sim_admin(self, ask):
        """Any IAM call by somebody else: nobody checks it and it is not recorded."""
        status, content = self.ask_moto(ask)
        self.world.note(ask, status)
        return {"status": status, "content": content}

    def sim_grant(self, ask):
        """{"user", "policies"}: rights that moto need not understand."""
        self.keys.granted[ask["user"]] = ask["policies"]
        return {}

    def sim_settings(self, ask):
        """{"propagation_ms", "report_ms", "skew_secs", "no_date", "members", "management", "root_used"}."""
        self.world.set(ask)
        self.keys.propagation = ask.get("propagation_ms", self.keys.propagation * 1000) / 1000
        return {}

    def sim_sign_in(self, ask):
        """{"user", "password", "code"}: the console. Gives a session, or 401. A device's code is wanted where
        the user has one."""
        return self.world.sign_in(ask["user"], ask["password"], ask.get("code"))

    def sim_session(self, ask):
        """{"session"}: whether a session may still do anything."""
        return {"alive": self.world.session_lives(ask["session"])}

    def sim_root(self, ask):
        """{"account"}: the root user's credentials; {"account", "set": {…}} changes them behind our back."""
        root = self.world.root(ask["account"])
        root.update(ask.get("set", {}))
        return root


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def make_environ(self):
        environ = super().make_environ()
        environ["werkzeug.socket"] = self.connection
        return environ

    def send_response(self, code, message=None):
        # Without the machine's own date: the simulator's clock says what time it is.
        self.send_response_only(code, message)

    def log(self, *_):
        pass


def main():
    server = make_server("127.0.0.1", 0, Simulator(), threaded=True, request_handler=Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
