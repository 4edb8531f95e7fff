"""A device that runs matrix-nio with encryption, as a test drives it.

A command per line on standard input, its answer per line on standard output, both JSON (see `RealClient` in
../src/real_clients.rs). Logs go to standard error.
"""

import asyncio
import json
import logging
import sys
import tempfile
import traceback

from nio import AsyncClient, AsyncClientConfig, RoomMessageText


class Device:
    """The logged-in device, and what has come in so far."""

    def __init__(self, store):
        self.store = store
        self.client = None
        self.syncing = None
        self.news = asyncio.Condition()
        self.messages = []

    async def register(self, url, username, password):
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        self.client = AsyncClient(url, username, store_path=self.store, config=config)
        answer = succeeded(await self.client.register(username, password))
        self.client.add_event_callback(self.take_message, RoomMessageText)
        # Uploads the device's keys when it is first answered, and more one-time keys when they run low.
        self.syncing = asyncio.create_task(self.sync())
        await self.until(lambda: self.client.next_batch and not self.client.should_upload_keys)
        return {"user_id": answer.user_id, "device_id": answer.device_id}

    async def sync(self):
        self.client.add_response_callback(self.tell_of_news)
        await self.client.sync_forever(timeout=10_000, full_state=True)

    async def join(self, room_id):
        # An invitation that has not arrived can't be accepted.
        await self.until(lambda: room_id in self.client.invited_rooms or room_id in self.client.rooms)
        succeeded(await self.client.join(room_id))
        await self.until(lambda: room_id in self.client.rooms)
        return {}

    async def send(self, room_id, body):
        await self.until(lambda: room_id in self.client.rooms and self.client.rooms[room_id].encrypted)
        content = {"msgtype": "m.text", "body": body}
        sent = await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        return {"event_id": succeeded(sent).event_id}

    async def await_message(self, room_id, body):
        """Waits for a message, decrypted."""

        def wanted():
            return next((event for room, event in self.messages if room == room_id and event.body == body), None)

        event = await self.until(wanted)
        return {"sender": event.sender, "encrypted": bool(event.decrypted)}

    async def take_message(self, room, event):
        self.messages.append((room.room_id, event))
        await self.tell_of_news()

    async def tell_of_news(self, _response=None):
        async with self.news:
            self.news.notify_all()

    async def until(self, look):
        """Waits until `look` finds something, looking whenever something came in."""

        async def found():
            async with self.news:
                while not (thing := look()):
                    await self.news.wait()
                return thing

        waiting = asyncio.create_task(found())
        done, _ = await asyncio.wait({waiting, self.syncing}, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            await self.syncing
            raise RuntimeError("syncing has ended")
        return waiting.result()


def succeeded(response):
    if type(response).__name__.endswith("Error"):
        raise RuntimeError(f"the server answered {response}")
    return response


async def main():
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    with tempfile.TemporaryDirectory() as store:
        device = Device(store)
        while line := await lines.readline():
            parameters = json.loads(line)
            try:
                answer = {"ok": await getattr(device, parameters.pop("command"))(**parameters)}
            except Exception:
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), flush=True)
        if device.syncing:
            device.syncing.cancel()
        if device.client:
            await device.client.close()


asyncio.run(main())
