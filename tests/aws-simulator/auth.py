"""Who calls, and whether they may: signatures by botocore, policies by hand.

moto's own checks let inactive keys in, know nothing of delays, and take any condition of a policy that they do
not know for a denial.
"""

import fnmatch
import json
import time
from datetime import datetime, timezone

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from answers import Refusal

ACCOUNT = "123456789012"
TASKS = "arn:aws:iam::aws:policy/root-task/"
managed = json.loads(aws_managed_policies_data)


def iam(account=ACCOUNT):
    return iam_backends[account]["aws"]


class Caller:
    def __init__(self, name, service, arn, policies, account=ACCOUNT, user=None, task=None, issued=None):
        self.name, self.service, self.arn, self.policies = name, service, arn, policies
        self.account, self.user, self.task, self.issued = account, user, task, issued

    def authorize(self, action, resource, params, now):
        if action == "sts:GetCallerIdentity":
            return
        context = {"aws:PrincipalArn": self.arn}
        if params.get("TaskPolicyArn.arn"):
            context["sts:TaskPolicyArn"] = params["TaskPolicyArn.arn"]
        if self.issued is not None:
            context["aws:TokenIssueTime"] = self.issued
        if not permitted(self.policies, action, resource, context):
            raise Refusal(403, "AccessDenied", f"User: {self.arn} is not authorized to perform: {action} on resource: {resource}")


def permitted(policies, action, resource, context):
    allowed = False
    for policy in policies:
        for statement in listed(policy["Statement"]):
            if applies(statement, action, resource, context):
                if statement["Effect"] == "Deny":
                    return False
                allowed = True
    return allowed


def applies(statement, action, resource, context):
    def any_of(patterns, value):
        return any(fnmatch.fnmatchcase(value.lower(), pattern.lower()) for pattern in listed(patterns))

    if "Action" in statement and not any_of(statement["Action"], action):
        return False
    if "NotAction" in statement and any_of(statement["NotAction"], action):
        return False
    if "Resource" in statement and not any_of(statement["Resource"], resource):
        return False
    if "NotResource" in statement and any_of(statement["NotResource"], resource):
        return False
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            if key not in context:
                return False
            value = context[key]
            if operator in ("StringEquals", "ArnEquals"):
                met = value in listed(wanted)
            elif operator in ("StringLike", "ArnLike"):
                met = any(fnmatch.fnmatchcase(value, one) for one in listed(wanted))
            elif operator == "DateLessThan":
                met = value < datetime.fromisoformat(wanted.replace("Z", "+00:00")).timestamp()
            else:
                raise Refusal(400, "MalformedPolicyDocument", f"the simulator does not know {operator}")
            if not met:
                return False
    return True


def listed(value):
    return value if isinstance(value, list) else [value]


def policies_of_user(user, account=ACCOUNT):
    backend = iam(account)
    documents = list(user.policies.values())
    documents += [policy.default_version.document if hasattr(policy, "default_version") else policy.document
                  for policy in user.managed_policies.values()]
    for group in backend.get_groups_for_user(user.name):
        documents += group.policies.values()
    return [json.loads(document) for document in documents]


def policies_of_role(role):
    return [json.loads(document) for document in role.policies.values()]


class Keys:
    """Keys as those who check them know them: a change is known only `propagation` seconds later."""

    def __init__(self):
        self.propagation = 0.0
        self.seen = {}  # key id -> [(known from, active)]
        self.granted = {}  # user -> policies beside moto's
        self.sessions = {}  # root sessions: key id -> (secret, token, account, task)

    def note(self):
        """Looks at all keys of moto's account and remembers since when each is as it is."""
        now = time.time()
        there = set()
        for user in iam().users.values():
            for key in user.access_keys:
                there.add(key.access_key_id)
                history = self.seen.setdefault(key.access_key_id, [])
                active = key.status == "Active"
                if not history or history[-1][1] != active:
                    # What was there before the simulator was asked anything is known.
                    history.append((now + self.propagation, active))
        for gone in set(self.seen) - there:
            if self.seen[gone] and self.seen[gone][-1][1]:
                self.seen[gone].append((now + self.propagation, False))

    def active(self, key):
        known = [active for since, active in self.seen.get(key, []) if since <= time.time()]
        return bool(known) and known[-1]

    def authenticate(self, environ, body, world):
        self.note()
        header = environ.get("HTTP_AUTHORIZATION", "")
        if not header.startswith("AWS4-HMAC-SHA256 "):
            raise Refusal(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        parts = dict(part.strip().split("=", 1) for part in header[len("AWS4-HMAC-SHA256 "):].split(","))
        key, _, region, service, _ = parts["Credential"].split("/")
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        caller, secret = self.find(key, token, service, world)
        if signature(environ, body, parts, key, secret, token, region, service) != parts["Signature"]:
            raise Refusal(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
        stamp = datetime.strptime(environ["HTTP_X_AMZ_DATE"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        if abs(stamp.timestamp() - world.now()) > 900:
            raise Refusal(403, "SignatureDoesNotMatch", "Signature expired")
        return caller

    def find(self, key, token, service, world):
        if key in self.sessions:
            secret, wanted, account, task = self.sessions[key]
            if token == wanted:
                name = task.rsplit("/", 1)[1]
                document = managed[name]["Document"]
                allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
                return Caller(f"root with {name}", service, f"arn:aws:iam::{account}:root", [allow, document], account, task=name), secret
        for role in sts_backends[ACCOUNT]["aws"].assumed_roles:
            if role.access_key_id == key and role.session_token == token:
                found = iam().get_role(role.role_arn.rsplit("/", 1)[1])
                return Caller(f"role {found.name}", service, role.arn, policies_of_role(found), issued=world.now()), role.secret_access_key
        for user in iam().users.values():
            for one in user.access_keys:
                # One that was deleted just now is refused at once here: a difference to AWS.
                if one.access_key_id == key and token is None and self.active(key):
                    return Caller(f"user {user.name}", service, user.arn, policies_of_user(user) + self.granted.get(user.name, []), user=user), one.secret_access_key
        raise Refusal(403, "InvalidClientTokenId", "The security token included in the request is invalid.")


def signature(environ, body, parts, key, secret, token, region, service):
    signed = parts["SignedHeaders"].split(";")
    names = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
    headers = {name: environ[names.get(name, "HTTP_" + name.upper().replace("-", "_"))] for name in signed}
    request = AWSRequest(method="POST", url=f"http://{environ['HTTP_HOST']}/", data=body, headers=headers)
    request.context["timestamp"] = environ["HTTP_X_AMZ_DATE"]
    signer = SigV4Auth(Credentials(key, secret, token), service, region)
    return signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
