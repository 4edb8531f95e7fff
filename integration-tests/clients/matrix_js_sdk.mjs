// A device that runs matrix-js-sdk with its rust-crypto, as a test drives it: a command per line on standard input, its
// answer per line on standard output, both JSON (see `RealClient` in ../src/real_clients.rs). Logs go to standard error.
import "./older-node.mjs";
import { createInterface } from "node:readline";

for (const level of ["trace", "debug", "log", "info", "warn"]) {
    console[level] = (...words) => process.stderr.write(`${words.join(" ")}\n`);
}

const sdk = await import("matrix-js-sdk");
const { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent, decodeRecoveryKey } = await import(
    "matrix-js-sdk/lib/crypto-api/index.js"
);

let client;
let password;
let recoveryKey;
let verification;
let sas;

/** Resolves when `look` finds something; looks at once and whenever one of the emitters emits. */
function until(look, ...sources) {
    return new Promise((resolve, reject) => {
        const check = async () => {
            try {
                const found = await look();
                if (found === undefined) return;
                for (const [emitter, event] of sources) emitter.off(event, check);
                resolve(found);
            } catch (error) {
                reject(error);
            }
        };
        for (const [emitter, event] of sources) emitter.on(event, check);
        check();
    });
}

async function start(baseUrl, session) {
    client = sdk.createClient({
        baseUrl,
        userId: session.user_id,
        deviceId: session.device_id,
        accessToken: session.access_token,
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], decodeRecoveryKey(recoveryKey)],
        },
        verificationMethods: ["m.sas.v1"],
    });
    await client.initRustCrypto({ useIndexedDB: false });
    client.on(CryptoEvent.VerificationRequestReceived, (request) => {
        verification = request;
    });
    await client.startClient({ initialSyncLimit: 10 });
    await until(() => (client.isInitialSyncComplete() ? true : undefined), [client, sdk.ClientEvent.Sync]);
    return { user_id: session.user_id, device_id: session.device_id };
}

/** The text of a message as it was decrypted, or undefined. */
function textOf(event) {
    return event.getType() === "m.room.message" && !event.isDecryptionFailure() ? event.getContent().body : undefined;
}

function passwordAuth(session) {
    const identifier = { type: "m.id.user", user: client.getUserId() };
    return { type: "m.login.password", identifier, password, session };
}

/** Runs the SAS verification up to the emoji, which the test compares. */
async function showEmoji(verifier) {
    const shown = new Promise((resolve) => verifier.once(VerifierEvent.ShowSas, resolve));
    const done = verifier.verify();
    sas = { callbacks: await Promise.race([shown, done.then(() => Promise.reject(new Error("no emoji were shown")))]), done };
    return { emoji: sas.callbacks.sas.emoji.map(([, name]) => name) };
}

const commands = {
    async register({ url, username, password: secret }) {
        password = secret;
        const anonymous = sdk.createClient({ baseUrl: url });
        const auth = { type: "m.login.dummy" };
        return start(url, await anonymous.registerRequest({ username, password, auth }));
    },

    async log_in({ url, username, password: secret }) {
        password = secret;
        const anonymous = sdk.createClient({ baseUrl: url });
        const identifier = { type: "m.id.user", user: username };
        return start(url, await anonymous.loginRequest({ type: "m.login.password", identifier, password }));
    },

    /** Cross-signing keys, secret storage behind a new recovery key, and a key backup. */
    async set_up_recovery() {
        const crypto = client.getCrypto();
        await crypto.bootstrapCrossSigning({
            // The first request carries no authentication; the answer names the session to go on with.
            authUploadDeviceSigningKeys: async (upload) => {
                try {
                    return await upload(null);
                } catch (error) {
                    if (error.httpStatus !== 401) throw error;
                    return upload(passwordAuth(error.data.session));
                }
            },
        });
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => {
                const key = await crypto.createRecoveryKeyFromPassphrase();
                recoveryKey = key.encodedPrivateKey;
                return key;
            },
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        return { recovery_key: recoveryKey };
    },

    async create_encrypted_room({ invite }) {
        const { room_id } = await client.createRoom({
            preset: "private_chat",
            invite,
            initial_state: [
                { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
            ],
        });
        await until(() => client.getRoom(room_id) ?? undefined, [client, sdk.ClientEvent.Room]);
        return { room_id };
    },

    /** Waits until somebody is joined. */
    async await_member({ room_id, user_id }) {
        const joined = () => client.getRoom(room_id)?.getMember(user_id)?.membership === "join" || undefined;
        await until(joined, [client, sdk.RoomMemberEvent.Membership], [client, sdk.ClientEvent.Sync]);
        return {};
    },

    async send({ room_id, body }) {
        return client.sendTextMessage(room_id, body);
    },

    /** Waits for a message, decrypted. */
    async await_message({ room_id, body }) {
        const event = await until(
            () => client.getRoom(room_id)?.getLiveTimeline().getEvents().find((event) => textOf(event) === body),
            [client, sdk.RoomEvent.Timeline],
            [client, sdk.MatrixEventEvent.Decrypted],
        );
        return { sender: event.getSender(), encrypted: event.isEncrypted() };
    },

    /** Fetches the history of a room from its beginning. */
    async fetch_history({ room_id }) {
        const room = await until(() => client.getRoom(room_id) ?? undefined, [client, sdk.ClientEvent.Room]);
        while (room.oldState.paginationToken) await client.scrollback(room, 20);
        return {};
    },

    /** Waits until the server's key backup has as many keys. */
    async await_backup({ keys }) {
        const enough = async () => {
            // The library remembers what it was told first, so the server is asked here.
            const options = { prefix: sdk.ClientPrefix.V3 };
            const { count } = await client.http.authedRequest(sdk.Method.Get, "/room_keys/version", {}, undefined, options);
            return count >= keys ? count : undefined;
        };
        const count = await until(enough, [client, CryptoEvent.KeyBackupSessionsRemaining], [client, sdk.ClientEvent.Sync]);
        return { count };
    },

    /** As with a new device whose user types the recovery key: signs this device, and takes all keys from the backup. */
    async recover({ recovery_key }) {
        recoveryKey = recovery_key;
        const crypto = client.getCrypto();
        // The private keys are taken only if the public ones are known.
        await crypto.userHasCrossSigningKeys(client.getUserId(), true);
        await crypto.bootstrapCrossSigning({});
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        const { imported } = await crypto.restoreKeyBackup();
        return { imported };
    },

    /** Asks the user's other devices to verify this one, and goes on to the emoji. */
    async request_verification() {
        verification = await client.getCrypto().requestOwnUserVerification();
        await until(
            () => (verification.phase >= VerificationPhase.Ready ? true : undefined),
            [verification, VerificationRequestEvent.Change],
        );
        return showEmoji(await verification.startVerification("m.sas.v1"));
    },

    /** Waits for such a request, accepts it, and goes on to the emoji. */
    async accept_verification() {
        await until(() => verification, [client, CryptoEvent.VerificationRequestReceived]);
        await verification.accept();
        const verifier = await until(() => verification.verifier, [verification, VerificationRequestEvent.Change]);
        return showEmoji(verifier);
    },

    /** The user says that the emoji are the same. */
    async confirm_emoji() {
        await sas.callbacks.confirm();
        await sas.done;
        return {};
    },

    /** Waits until a device is signed by its user's cross-signing key, and that key is trusted here. */
    async await_verified({ user_id, device_id }) {
        const verified = async () => {
            const status = await client.getCrypto().getDeviceVerificationStatus(user_id, device_id);
            return status?.signedByOwner && status.crossSigningVerified ? true : undefined;
        };
        await until(verified, [client, CryptoEvent.DevicesUpdated], [client, CryptoEvent.UserTrustStatusChanged], [client, sdk.ClientEvent.Sync]);
        return {};
    },

    /** Waits until the key of the key backup has come from another device. */
    async await_backup_key() {
        const key = async () => (await client.getCrypto().getSessionBackupPrivateKey()) ?? undefined;
        await until(key, [client, CryptoEvent.KeyBackupDecryptionKeyCached], [client, sdk.ClientEvent.Sync]);
        const { imported } = await client.getCrypto().restoreKeyBackup();
        return { imported };
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...parameters } = JSON.parse(line);
    let answer;
    try {
        answer = { ok: await commands[command](parameters) };
    } catch (error) {
        answer = { error: String(error?.stack ?? error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit();
