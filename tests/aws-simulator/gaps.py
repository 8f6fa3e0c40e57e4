"""What moto lacks: password policy, codes of MFA devices, the credential report, root users of member accounts."""

import base64
import hashlib
import hmac
import time
from datetime import datetime, timezone
from secrets import token_hex

from answers import Refusal, answer, element
from auth import ACCOUNT, TASKS, iam, permitted, policies_of_user

SYMBOLS = "!@#$%^&*()_+-=[]{}|'"
ROOT_ACTIONS = {
    "GetLoginProfile", "DeleteLoginProfile", "CreateLoginProfile", "GetUser", "ListAccessKeys", "DeleteAccessKey",
    "ListMFADevices", "DeactivateMFADevice", "ListSigningCertificates", "DeleteSigningCertificate",
}


def stamp(moment):
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def code(seed, step):
    """RFC 6238, independently of the program under test."""
    digest = hmac.new(base64.b32decode(seed), step.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(int.from_bytes(digest[offset:offset + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


class World:
    def __init__(self, ask_moto, keys):
        self.ask_moto, self.keys = ask_moto, keys
        self.skew = 0
        self.report_age = 4 * 3600
        self.report = None  # (made, content)
        self.report_asked = None
        self.passwords = {}  # user -> [(time, password)]
        self.reset = {}  # user -> must be changed
        self.roots = {}
        self.members = set()
        self.root_used = "no_information"
        self.sessions = {}
        self.used_codes = set()

    def now(self):
        return time.time() + self.skew

    def set(self, ask):
        self.skew = ask.get("skew_secs", self.skew)
        self.report_age = ask.get("report_ms", self.report_age * 1000) / 1000
        self.members |= set(ask.get("members", []))
        self.root_used = ask.get("root_used", self.root_used)

    def root(self, account):
        return self.roots.setdefault(account, {"password": True, "keys": [], "devices": [], "certificates": []})

    # --- what a call is about

    def resource(self, caller, params):
        account, action = caller.account, params["Action"]
        if action == "AssumeRoot":
            return f"arn:aws:iam::{params['TargetPrincipal']}:root"
        if caller.task:
            return f"arn:aws:iam::{account}:root" if action != "GetAccountSummary" else "*"
        if action == "AssumeRole":
            return params["RoleArn"]
        if "VirtualMFADeviceName" in params:
            return f"arn:aws:iam::{account}:mfa/{params['VirtualMFADeviceName']}"
        if action == "DeleteVirtualMFADevice":
            return params["SerialNumber"]
        if action == "ListVirtualMFADevices":
            return f"arn:aws:iam::{account}:mfa/"
        if "UserName" in params:
            return f"arn:aws:iam::{account}:user/{params['UserName']}"
        if "RoleName" in params:
            return f"arn:aws:iam::{account}:role/{params['RoleName']}"
        return "*"

    # --- answers of our own

    def answer(self, caller, params):
        """An answer, or none where moto gives it."""
        action = params["Action"]
        if action == "GetCallerIdentity":
            # moto does not know root sessions and takes inactive keys; who it is, is known already.
            arn = element("Arn", caller.arn) + element("UserId", "AIDASIMULATED") + element("Account", caller.account)
            return answer(action, arn, "sts")
        if caller.task:
            return self.as_root(caller, params)
        if action == "AssumeRoot":
            return self.assume_root(caller, params)
        if action in ("UpdateLoginProfile", "CreateLoginProfile"):
            self.check_password(action, params["UserName"], params["Password"])
        if action == "EnableMFADevice":
            self.check_codes(params)
        if action == "DeleteVirtualMFADevice":
            device = iam().virtual_mfa_devices.get(params["SerialNumber"])
            if device is not None and device.enable_date:
                raise Refusal(409, "DeleteConflict", "The device is assigned; deactivate it first")
        if action == "GenerateCredentialReport":
            return self.generate(action)
        if action == "GetCredentialReport":
            return self.give_report(action)
        if action == "GetLoginProfile":
            return self.login_profile(action, params["UserName"])
        return None

    def after(self, caller, params, result):
        self.note(params, result[0])

    def note(self, params, status):
        """Remembers what a call changed, whoever made it."""
        self.keys.note()
        if status != 200:
            return
        action, user = params.get("Action"), params.get("UserName")
        if action in ("UpdateLoginProfile", "CreateLoginProfile"):
            self.passwords.setdefault(user, []).append((self.now(), params["Password"]))
            self.reset[user] = params.get("PasswordResetRequired") == "true"

    def login_profile(self, action, name):
        user = iam().get_user(name)
        if not user.password:
            raise Refusal(404, "NoSuchEntity", f"Login Profile for User {name} cannot be found.")
        profile = element("UserName", name) + element("CreateDate", "2026-01-01T00:00:00Z")
        profile += element("PasswordResetRequired", "true" if self.reset.get(name) else "false")
        return answer(action, f"<LoginProfile>{profile}</LoginProfile>")

    def check_password(self, action, name, password):
        user = iam().users.get(name)
        if user is None:
            raise Refusal(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
        if (action == "UpdateLoginProfile") != bool(user.password):
            return  # moto refuses it
        policy = iam().account_password_policy
        if policy is None:
            return
        history = [old for _, old in self.passwords.get(name, [])]
        reuse = policy.password_reuse_prevention
        wanted = [
            len(password) >= (policy.minimum_password_length or 6),
            not policy.require_symbols or any(c in SYMBOLS for c in password),
            not policy.require_numbers or any(c.isdigit() for c in password),
            not policy.require_uppercase_characters or any(c.isupper() for c in password),
            not policy.require_lowercase_characters or any(c.islower() for c in password),
            not reuse or password not in history[-reuse:],
        ]
        if not all(wanted):
            raise Refusal(400, "PasswordPolicyViolation", f"Password {password} should meet the account password policy")

    def check_codes(self, params):
        device = iam().virtual_mfa_devices.get(params["SerialNumber"])
        if device is None:
            raise Refusal(404, "NoSuchEntity", "VirtualMFADevice with that serial number cannot be found.")
        if device.enable_date:
            raise Refusal(409, "EntityAlreadyExists", "The device is enabled already")
        now = int(self.now() // 30)
        pair = (params["AuthenticationCode1"], params["AuthenticationCode2"])
        good = [(code(device.base32_string_seed, step), code(device.base32_string_seed, step + 1)) for step in (now - 2, now - 1, now)]
        if pair not in good:
            raise Refusal(403, "InvalidAuthenticationCode", "Authentication code for device is not valid.")

    # --- the credential report

    def generate(self, action):
        now = self.now()
        if self.report is not None and now - self.report[0] < self.report_age:
            return answer(action, element("State", "COMPLETE"))
        if self.report_asked is None:
            self.report_asked = now
            return answer(action, element("State", "STARTED") + element("Description", "No report exists."))
        self.report = (now, self.make_report())
        self.report_asked = None
        return answer(action, element("State", "COMPLETE"))

    def give_report(self, action):
        if self.report is None:
            raise Refusal(410, "ReportNotPresent", "No report exists.")
        made, content = self.report
        content = base64.b64encode(content.encode()).decode()
        moment = stamp(made).replace("+00:00", "Z")
        return answer(action, element("Content", content) + element("ReportFormat", "text/csv") + element("GeneratedTime", moment))

    def make_report(self):
        lines = ["user,arn,user_creation_time,password_enabled,password_last_used,password_last_changed,password_next_rotation,mfa_active"]
        lines.append(f"<root_account>,arn:aws:iam::{ACCOUNT}:root,2020-01-01T00:00:00+00:00,not_supported,{self.root_used},not_supported,not_supported,true")
        for user in iam().users.values():
            history = self.passwords.get(user.name, [])
            changed = stamp(history[-1][0]) if user.password and history else "N/A"
            enabled = "true" if user.password else "false"
            mfa = "true" if user.mfa_devices else "false"
            lines.append(f"{user.name},{user.arn},2026-01-01T00:00:00+00:00,{enabled},no_information,{changed},N/A,{mfa}")
        return "\n".join(lines) + "\n"

    # --- the console

    def sign_in(self, name, password, given):
        user = iam().users.get(name)
        if user is None or not user.password or not hmac.compare_digest(user.password, password):
            raise Refusal(401, "WrongPassword", "-")
        seeds = [iam().virtual_mfa_devices[serial].base32_string_seed for serial in user.mfa_devices if serial in iam().virtual_mfa_devices]
        step = int(self.now() // 30)
        if seeds and given not in [code(seed, step + drift) for seed in seeds for drift in (-1, 0)]:
            raise Refusal(401, "WrongCode", "-")
        session = token_hex(8)
        self.sessions[session] = (name, self.now())
        return {"session": session}

    def session_lives(self, session):
        name, issued = self.sessions[session]
        user = iam().users.get(name)
        if user is None:
            return False
        context = {"aws:TokenIssueTime": issued}
        allow = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
        return permitted([allow, *policies_of_user(user)], "iam:GetUser", user.arn, context)

    # --- root users of member accounts

    def assume_root(self, caller, params):
        account, task = params["TargetPrincipal"], params["TaskPolicyArn.arn"]
        if account not in self.members or not task.startswith(TASKS):
            raise Refusal(403, "AccessDenied", f"{caller.arn} cannot assume root in {account}")
        key, secret, token = "ASIAROOT" + token_hex(6).upper(), token_hex(20), token_hex(32)
        self.keys.sessions[key] = (secret, token, account, task)
        expires = stamp(self.now() + int(params.get("DurationSeconds", 900))).replace("+00:00", "Z")
        session = element("AccessKeyId", key) + element("SecretAccessKey", secret) + element("SessionToken", token) + element("Expiration", expires)
        return answer("AssumeRoot", f"<Credentials>{session}</Credentials>", "sts")

    def as_root(self, caller, params):
        action, root = params["Action"], self.root(caller.account)
        if action not in ROOT_ACTIONS:
            raise Refusal(400, "InvalidAction", f"the simulator has no {action} of a root user")
        missing = Refusal(404, "NoSuchEntity", "It cannot be found.")
        if action == "GetLoginProfile":
            if not root["password"]:
                raise missing
            return answer(action, "<LoginProfile>" + element("CreateDate", "2026-01-01T00:00:00Z") + "</LoginProfile>")
        if action == "DeleteLoginProfile":
            if not root["password"]:
                raise missing
            root["password"] = False
            return answer(action)
        if action == "CreateLoginProfile":
            if params.get("Password"):
                raise Refusal(400, "ValidationError", "Password must not be given in a root session")
            if root["password"]:
                raise Refusal(409, "EntityAlreadyExists", "There is a login profile already")
            root["password"] = True
            return answer(action, "<LoginProfile>" + element("CreateDate", "2026-01-01T00:00:00Z") + "</LoginProfile>")
        if action == "GetUser":
            user = element("Path", "/") + element("UserId", caller.account) + element("Arn", caller.arn) + element("CreateDate", "2020-01-01T00:00:00Z")
            return answer(action, f"<User>{user}</User>")
        lists = {
            "ListAccessKeys": ("keys", "AccessKeyMetadata", lambda one: element("AccessKeyId", one) + element("Status", "Active")),
            "ListMFADevices": ("devices", "MFADevices", lambda one: element("SerialNumber", one) + element("UserName", "root") + element("EnableDate", "2026-01-01T00:00:00Z")),
            "ListSigningCertificates": ("certificates", "Certificates", lambda one: element("CertificateId", one) + element("UserName", "root") + element("CertificateBody", "-") + element("Status", "Active")),
        }
        if action in lists:
            kind, outer, shown = lists[action]
            members = "".join(f"<member>{shown(one)}</member>" for one in root[kind])
            return answer(action, f"<IsTruncated>false</IsTruncated><{outer}>{members}</{outer}>")
        kind, name = {
            "DeleteAccessKey": ("keys", "AccessKeyId"),
            "DeactivateMFADevice": ("devices", "SerialNumber"),
            "DeleteSigningCertificate": ("certificates", "CertificateId"),
        }[action]
        if params[name] not in root[kind]:
            raise missing
        if action == "DeactivateMFADevice" and root["password"]:
            raise Refusal(409, "SimulatorOrder", "a password was left without its devices")
        root[kind].remove(params[name])
        return answer(action)
