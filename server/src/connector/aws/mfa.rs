//! `aws-iam-mfa`: the virtual MFA device of an IAM user, whose seed is what is sealed.
//!
//! AWS makes the seed; a device counts once two codes that follow each other were shown. A user may have
//! several devices, so the new one is enabled beside the old one, which goes afterwards. Only virtual
//! devices are looked at: a hardware token or a passkey of the same user is not ours to judge or to remove.
//!
//! # Invariants
//! 1. Codes are made for AWS's time, as its last answer told it, not for this host's.
//! 2. A device that was made here is known by its name, which holds the credential's id and the time when it
//!    was made. Any other is never taken for ours.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_iam::operation::{
    create_virtual_mfa_device::CreateVirtualMFADeviceError,
    deactivate_mfa_device::DeactivateMFADeviceError,
    delete_virtual_mfa_device::DeleteVirtualMFADeviceError,
    enable_mfa_device::EnableMFADeviceError,
};
use aws_sdk_iam::{
    primitives::DateTime,
    types::{AssignmentStatusType, MfaDevice, VirtualMfaDevice},
};
use keyturn_seal::secret::SecretBytes;
use keyturn_vault::name::KeyId;

use super::{
    call::{Call, made_before, unlisted},
    platform::{Clients, Platform},
    report,
    settings::{self, Settings},
    surroundings, totp,
};
use crate::{
    config,
    connector::{
        About, Attempt, Connector, Created, Failure, Key, Known, Sight, Target, TwoSlot, Verdict,
    },
};

/// MFA devices that a user has at most.
const QUOTA: usize = 8;

/// Virtual MFA devices of IAM users.
pub struct Mfa {
    platform: Platform,
}

impl Mfa {
    /// By a configuration.
    pub fn new(config: &config::Aws) -> Self {
        Self {
            platform: Platform::new(config.host()),
        }
    }

    /// The devices of a user, and AWS's time.
    async fn enabled(
        &self,
        clients: &Clients,
        user: &str,
    ) -> Result<(Vec<MfaDevice>, Option<DateTime>), Failure> {
        let call = self.platform.looks("ListMFADevices");
        // One page holds a hundred, and a user has eight at most.
        let operation = clients.look.list_mfa_devices().user_name(user);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        Ok((answer.mfa_devices, call.answered()))
    }

    /// The serial numbers of devices that were made here for this credential and are not enabled.
    async fn idle(&self, clients: &Clients, target: &Target) -> Result<Vec<String>, Failure> {
        let call = self.platform.looks("ListVirtualMFADevices");
        let pages = clients
            .look
            .list_virtual_mfa_devices()
            .assignment_status(AssignmentStatusType::Unassigned)
            .into_paginator()
            .items()
            .send();
        let devices: Vec<VirtualMfaDevice> = call.send(pages.collect()).await?;
        let ours = format!(":mfa/{}", name_stem(target));
        Ok(devices
            .into_iter()
            .map(|device| device.serial_number)
            .filter(|serial| serial.contains(&ours))
            .collect())
    }
}

#[async_trait]
impl Connector for Mfa {
    fn about(&self) -> About {
        About {
            kind: "aws-iam-mfa",
            fence: false,
            rights: &[
                "make, enable, deactivate and delete virtual MFA devices of the named IAM users",
                "list virtual MFA devices",
                "read the named users, their groups and policies, and the named roles",
            ],
        }
    }

    fn deadline(&self) -> Duration {
        self.platform.deadline()
    }

    fn check_settings(&self, target: &Target) -> Result<(), String> {
        Settings::of_user(target, false).map(drop)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok(self.platform.caller().await?.arn)
    }

    async fn check(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        self.enabled(clients, settings.user).await?;
        self.idle(clients, target).await.map(drop)
    }

    async fn probe(&self, target: &Target, known: &Known) -> Result<Sight, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let sight = |verdict| {
            Ok(Sight {
                verdict,
                facts: [].into(),
            })
        };
        let Some(user) = surroundings::user(&self.platform, clients, settings.user).await? else {
            return sight(Verdict::Absent);
        };
        let Some(ours) = &known.key else {
            return Ok(Sight::not_observable(
                "nobody knows yet which device is the sealed one",
            ));
        };
        let (devices, _) = self.enabled(clients, settings.user).await?;
        let device = devices
            .iter()
            .find(|one| one.serial_number() == ours.as_str());
        let Some(device) = device else {
            return sight(Verdict::Absent);
        };
        let mut facts = surroundings::facts(&self.platform, clients, settings, &user).await?;
        // A device that is enabled again shows another time.
        let since = report::time(device.enable_date()).map(|at| at.stamp().to_string());
        facts.insert("enabled".to_owned(), since.unwrap_or_default());
        let mut serials: Vec<_> = devices.iter().map(MfaDevice::serial_number).collect();
        serials.sort_unstable();
        facts.insert("devices".to_owned(), serials.join(" "));
        Ok(Sight::unchanged(facts, known))
    }
}

#[async_trait]
impl TwoSlot for Mfa {
    fn quota(&self) -> usize {
        QUOTA
    }

    async fn keys(&self, target: &Target) -> Result<Vec<Key>, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let (enabled, _) = self.enabled(clients, settings.user).await?;
        let mut keys = Vec::new();
        for device in enabled.iter().filter(|one| is_virtual(one.serial_number())) {
            keys.push(Key {
                id: key_id(device.serial_number())?,
                active: true,
                named: is_named(target, device.serial_number()),
            });
        }
        for serial in self.idle(clients, target).await? {
            keys.push(Key {
                id: key_id(&serial)?,
                active: false,
                named: is_named(target, &serial),
            });
        }
        Ok(keys)
    }

    async fn create(&self, target: &Target, attempt: Attempt) -> Result<Created, Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let (_, now) = self.enabled(clients, settings.user).await?;
        let now = seconds(now)?;
        let call = Call::change("CreateVirtualMFADevice", attempt);
        let operation = clients.change.create_virtual_mfa_device();
        let operation = operation.virtual_mfa_device_name(format!("{}{now}", name_stem(target)));
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        let answer = match answer {
            Err(failed) if failed.is(CreateVirtualMFADeviceError::is_limit_exceeded_exception) => {
                return Err(Failure::Full(
                    "the account has as many virtual MFA devices as it can".to_owned(),
                ));
            }
            // Its name is the second in which it was made, and another one of this credential was made in the same.
            Err(failed)
                if failed.is(CreateVirtualMFADeviceError::is_entity_already_exists_exception) =>
            {
                return Err(Failure::Busy {
                    why: "a device of this name was just made".to_owned(),
                    after: Some(Duration::from_secs(1)),
                });
            }
            other => other?,
        };
        let device = answer.virtual_mfa_device.ok_or_else(|| {
            Failure::Unknown("CreateVirtualMFADevice: no device in the answer".to_owned())
        })?;
        let seed = device
            .base32_string_seed()
            .map(|seed| SecretBytes::from_slice(seed.as_ref()));
        let seed = seed.filter(|seed| totp::seed(seed.expose()).is_some());
        Ok(Created {
            id: key_id(device.serial_number())?,
            secret: seed.ok_or_else(|| {
                Failure::Unknown("CreateVirtualMFADevice: no seed in the answer".to_owned())
            })?,
        })
    }

    async fn test(
        &self,
        target: &Target,
        attempt: Attempt,
        key: &KeyId,
        new: &SecretBytes,
    ) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let (enabled, now) = self.enabled(clients, settings.user).await?;
        if enabled
            .iter()
            .any(|one| one.serial_number() == key.as_str())
        {
            // It is enabled only by codes of its seed, and only this daemon has had it.
            return Ok(());
        }
        // `expose`: to make the two codes.
        let seed = totp::seed(new.expose())
            .ok_or_else(|| Failure::Refused("what is sealed is not a seed".to_owned()))?;
        let now = seconds(now)?;
        let [first, second] = totp::consecutive(&seed, now);
        let call = Call::change("EnableMFADevice", attempt).with_secret();
        let operation = clients.change.enable_mfa_device();
        let operation = operation
            .user_name(settings.user)
            .serial_number(key.as_str())
            .authentication_code1(first)
            .authentication_code2(second);
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        made_before(
            answer,
            EnableMFADeviceError::is_entity_already_exists_exception,
        )
    }

    async fn deactivate(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        let clients = self.platform.of_account(settings.account).await?;
        let call = Call::change("DeactivateMFADevice", Attempt::within(0, self.deadline()));
        let operation = clients.change.deactivate_mfa_device();
        let operation = operation
            .user_name(settings.user)
            .serial_number(key.as_str());
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        made_before(
            answer,
            DeactivateMFADeviceError::is_no_such_entity_exception,
        )
    }

    async fn delete(&self, target: &Target, key: &KeyId) -> Result<(), Failure> {
        let settings = Settings::of_user(target, false).map_err(settings::refused)?;
        if !is_virtual(key.as_str()) {
            return Err(Failure::Refused(format!("{key} is not a virtual device")));
        }
        // One that was enabled by an attempt that then failed is still assigned, and AWS deletes none that is.
        self.deactivate(target, key).await?;
        let clients = self.platform.of_account(settings.account).await?;
        let attempt = Attempt::within(0, self.deadline());
        let call = Call::change("DeleteVirtualMFADevice", attempt);
        let operation = clients.change.delete_virtual_mfa_device();
        let operation = operation.serial_number(key.as_str());
        let answer = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await;
        made_before(
            answer,
            DeleteVirtualMFADeviceError::is_no_such_entity_exception,
        )?;
        unlisted(self, target, key, attempt).await
    }
}

/// How the names of a credential's devices begin.
fn name_stem(target: &Target) -> String {
    format!("keyturn-{}-", target.credential)
}

/// Whether a device's name is one that is given here.
fn is_named(target: &Target, serial: &str) -> bool {
    let name = serial.split_once(":mfa/").map(|(_, name)| name);
    let time = name.and_then(|name| name.strip_prefix(&name_stem(target)));
    time.is_some_and(|time| time.parse::<u64>().is_ok())
}

/// A time of AWS in seconds since 1970. Without one nothing is begun.
fn seconds(now: Option<DateTime>) -> Result<u64, Failure> {
    now.and_then(|now| u64::try_from(now.secs()).ok())
        .ok_or_else(|| Failure::Refused("AWS does not say what time it is".to_owned()))
}

/// Whether a serial number is that of a virtual device, like `arn:aws:iam::123456789012:mfa/NAME`.
fn is_virtual(serial: &str) -> bool {
    serial.starts_with("arn:") && serial.contains(":mfa/")
}

/// What AWS calls a device.
fn key_id(serial: &str) -> Result<KeyId, Failure> {
    serial
        .parse()
        .map_err(|_| Failure::Unknown("AWS gave a device without a readable number".to_owned()))
}
