// matrix-js-sdk is made for Node.js 22; distributions have 18 and 20, which lack these two standard functions.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;

Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new this((onResolve, onReject) => {
        resolve = onResolve;
        reject = onReject;
    });
    return { promise, resolve, reject };
};
