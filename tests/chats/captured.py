"""Frames captured from the original server and its clients, verbatim (contract §7.5)."""

from __future__ import annotations

from typing import Any

# ruff: noqa: E501  a captured frame is one line

REQUESTS: dict[str, tuple[str, str, Any]] = {
    '{"id":"8Uaylj2zYbVxPT4C","type":"chat:send-messages-send","payload":{"id":"chat:send-messages-send","type":"event","_flowDirection":"outbound","invokeType":0,"body":{"invokeId":"MjBRxFMyUTyUsG64","content":{"chatId":"c1","messages":[{"id":"m1","role":"user","content":"hi"}]}}},"timestamp":1795232935870}': (
        "MjBRxFMyUTyUsG64",
        "chat:send-messages",
        {"chatId": "c1", "messages": [{"id": "m1", "role": "user", "content": "hi"}]},
    ),
    '{"id":"NYbfIcsY6IoZ2gw4","type":"chat:pull-messages-send","payload":{"id":"chat:pull-messages-send","type":"event","_flowDirection":"outbound","invokeType":0,"body":{"invokeId":"CrYQOA01BiGJ4j33","content":{"chatId":"c1","afterSeq":0}}},"timestamp":1795232935892}': (
        "CrYQOA01BiGJ4j33",
        "chat:pull-messages",
        {"chatId": "c1", "afterSeq": 0},
    ),
    '{"id":"H5ld2noxwbm26wRv","type":"chat:send-messages-send","payload":{"id":"chat:send-messages-send","type":"event","_flowDirection":"outbound","invokeType":0,"body":{"invokeId":"Zc6JBDFeF1uwBRle"}},"timestamp":1795232936000}': (
        "Zc6JBDFeF1uwBRle",
        "chat:send-messages",
        None,
    ),
    '{"id":"uZ0SdRoGFo5zHRyB","type":"chat:send-messages-send","payload":{"id":"chat:send-messages-send","type":"event","_flowDirection":"outbound","invokeType":0,"body":{"invokeId":"KjLkxT2aA0xmRgQG","content":{"chunk":1},"isReqStream":true}},"timestamp":1795232936767}': (
        "KjLkxT2aA0xmRgQG",
        "chat:send-messages",
        {"chunk": 1},
    ),
    '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":"py-1","content":{"chatId":"c1","afterSeq":0}}}}': (
        "py-1",
        "chat:pull-messages",
        {"chatId": "c1", "afterSeq": 0},
    ),
    '{"deliveryId":"nZdgqKJzJgS8XUFE","hopsRemaining":31,"eventa":{"id":"chat:authenticate-send","type":"event","invokeType":0,"body":{"invokeId":"8t5YYHfOeBO7RB4k","content":{"token":"jwt"}},"_flowDirection":"outbound"}}': (
        "8t5YYHfOeBO7RB4k",
        "chat:authenticate",
        {"token": "jwt"},
    ),
}

ERROR_FRAMES = [
    '{"id":"547fe1cf-4a16-4ba6-ad51-d5edacc5c6df","type":"chat:send-messages-receive-error-clcNgheLFwhxZG06","payload":{"id":"chat:send-messages-receive-error-clcNgheLFwhxZG06","type":"event","_flowDirection":"outbound","invokeType":5,"body":{"invokeId":"clcNgheLFwhxZG06","content":{"error":{"statusCode":404,"errorCode":"NOT_FOUND","name":"ApiError"}}}},"timestamp":1795232935913}',
    '{"id":"d2ceedf7-d6cc-4124-88f2-69cb6ffc4334","type":"chat:send-messages-receive-error-Bl3nu9HzPPU6XJp5","payload":{"id":"chat:send-messages-receive-error-Bl3nu9HzPPU6XJp5","type":"event","_flowDirection":"outbound","invokeType":5,"body":{"invokeId":"Bl3nu9HzPPU6XJp5","content":{"error":{"statusCode":400,"errorCode":"BAD_REQUEST","details":{"field":"x"},"name":"ApiError"}}}},"timestamp":1795232935934}',
    '{"id":"93cb56e5-c611-471e-95ec-40fe3f93337e","type":"chat:send-messages-receive-error-giiAxlwrMpRJHfiX","payload":{"id":"chat:send-messages-receive-error-giiAxlwrMpRJHfiX","type":"event","_flowDirection":"outbound","invokeType":5,"body":{"invokeId":"giiAxlwrMpRJHfiX","content":{"error":{}}}},"timestamp":1795232935959}',
    '{"id":"6408f6ca-720a-4325-9bd0-79766311d452","type":"chat:send-messages-receive-error-HWMoTuTH8xWoFFo0","payload":{"id":"chat:send-messages-receive-error-HWMoTuTH8xWoFFo0","type":"event","_flowDirection":"outbound","invokeType":5,"body":{"invokeId":"HWMoTuTH8xWoFFo0","content":{"error":"just a string"}}},"timestamp":1795232935980}',
    '{"id":"03bc46ba-f8d4-40df-9614-59c06914a876","type":"eventa:adapters:hono-ws:error","payload":{"id":"eventa:adapters:hono-ws:error","type":"event","_flowDirection":"outbound","body":{"error":{}}},"timestamp":1795232936809}',
    '{"deliveryId":"9sUihJXzdZ8ir753","hopsRemaining":31,"eventa":{"id":"chat:send-messages-receive-error-4onYxRluxa1pPJwE","type":"event","invokeType":5,"body":{"invokeId":"4onYxRluxa1pPJwE","content":{"error":{"statusCode":404,"errorCode":"NOT_FOUND","name":"ApiError"}}},"_flowDirection":"outbound"}}',
]

EVENTS = [
    '{"id":"f0f0c734-d0e2-4249-8086-6c0380e6692a","type":"eventa:adapters:hono-ws:connected","payload":{"id":"eventa:adapters:hono-ws:connected","type":"event","_flowDirection":"outbound","body":{}},"timestamp":1795232935869}',
    '{"id":"5a12f0a9-4cb9-4ef8-b5d2-ca3cac88eeaa","type":"chat:send-messages-receive-MjBRxFMyUTyUsG64","payload":{"id":"chat:send-messages-receive-MjBRxFMyUTyUsG64","type":"event","_flowDirection":"outbound","invokeType":4,"body":{"invokeId":"MjBRxFMyUTyUsG64","content":{"seq":7}}},"timestamp":1795232935871}',
    '{"id":"9a93edcf-19bb-455c-acd4-a4f8b97cd235","type":"chat:pull-messages-receive-CrYQOA01BiGJ4j33","payload":{"id":"chat:pull-messages-receive-CrYQOA01BiGJ4j33","type":"event","_flowDirection":"outbound","invokeType":4,"body":{"invokeId":"CrYQOA01BiGJ4j33","content":{"messages":[],"seq":7}}},"timestamp":1795232935892}',
    '{"id":"hEPdDilWBRYYYSXT","type":"chat:send-messages-send-abort","payload":{"id":"chat:send-messages-send-abort","type":"event","_flowDirection":"outbound","invokeType":3,"body":{"invokeId":"aif283N2RuZWjHad","content":"user gave up"}},"timestamp":1795232936042}',
    '{"id":"1sRdyognyr4ZsuLN","type":"chat:send-messages-send-abort","payload":{"id":"chat:send-messages-send-abort","type":"event","_flowDirection":"outbound","invokeType":3,"body":{"invokeId":"Fob9shunhD7euU3d","content":{}}},"timestamp":1795232936385}',
    '{"id":"be82a88f-28c2-4e2a-8366-1d9642755568","type":"probe:stream-receive-tqlqHjxjGt5J5QQN","payload":{"id":"probe:stream-receive-tqlqHjxjGt5J5QQN","type":"event","_flowDirection":"outbound","body":{"invokeId":"tqlqHjxjGt5J5QQN","content":1}},"timestamp":1795232936708}',
    '{"id":"5dbbeb26-fdda-47fa-a79d-2ab0f6a6019e","type":"probe:stream-receive-stream-end-tqlqHjxjGt5J5QQN","payload":{"id":"probe:stream-receive-stream-end-tqlqHjxjGt5J5QQN","type":"event","_flowDirection":"outbound","body":{"invokeId":"tqlqHjxjGt5J5QQN"}},"timestamp":1795232936708}',
    '{"id":"6a17aafd-b3af-4039-90dc-d148b491655d","type":"chat:new-messages","payload":{"id":"chat:new-messages","type":"event","_flowDirection":"outbound","body":{"chatId":"c1","messages":[{"id":"m1","chatId":"c1","senderId":"u1","role":"user","content":"hi","seq":7,"createdAt":1,"updatedAt":1}],"fromSeq":7,"toSeq":7}},"timestamp":1795232936788}',
    '{"id":"6f1c6e22-7f75-433d-ae64-93ce65122885","type":"chat:pull-messages-receive-py-1","payload":{"id":"chat:pull-messages-receive-py-1","type":"event","_flowDirection":"outbound","invokeType":4,"body":{"invokeId":"py-1","content":{"messages":[],"seq":7}}},"timestamp":1795232936809}',
    '{"deliveryId":"5NmTPnvMzw9PGuGI","hopsRemaining":31,"eventa":{"id":"chat:authenticate-receive-8t5YYHfOeBO7RB4k","type":"event","invokeType":4,"body":{"invokeId":"8t5YYHfOeBO7RB4k","content":{"userId":"u1"}},"_flowDirection":"outbound"}}',
    '{"deliveryId":"oaVFVmm68qFt9dH3","hopsRemaining":31,"eventa":{"id":"chat:new-messages","type":"event","_flowDirection":"outbound","body":{"chatId":"c1","messages":[],"fromSeq":7,"toSeq":7}}}',
    '{"deliveryId":"BWGSS4JNwbNbzqXP","hopsRemaining":31,"eventa":{"id":"eventa:adapters:hono-ws:connected","type":"event","_flowDirection":"outbound"}}',
    '{"id":"<unique>","type":"<eventId>","payload":{"id":"<eventId>","type":"event","_flowDirection":"outbound","body":{}},"timestamp":0,"deliveryId":"<unique>","hopsRemaining":31,"eventa":{"id":"<eventId>","type":"event","_flowDirection":"outbound","body":{}}}',
]

STRANGE = {
    "malformed": [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"x"',
        "NaN",
        "{}",
        '{"type":"chat:pull-messages-send"}',
        '{"type":"x","payload":null}',
        '{"type":"x","payload":7}',
        '{"payload":[]}',
        '{"deliveryId":"x","hopsRemaining":-1,"eventa":{"id":"x"}}',
        '{"deliveryId":"","hopsRemaining":1,"eventa":{"id":"x"}}',
        '{"deliveryId":"x","hopsRemaining":true,"eventa":{"id":"x"}}',
        '{"deliveryId":"x","hopsRemaining":1.5,"eventa":{"id":"x"}}',
        '{"deliveryId":"x","hopsRemaining":1,"eventa":{"id":7}}',
        '{"hopsRemaining":1,"eventa":{"id":"x"}}',
        '{"deliveryId":"x","eventa":{"id":"x"}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"type":"x","payload":{"body":NaN}}',
        r'{"type":"x","payload":{"body":"\ud800"',
    ],
    "ignored": [
        '{"payload":{}}',
        '{"type":"unknown","payload":{}}',
        '{"type":7,"payload":{}}',
        '{"type":"Xk2ndmqTUDPyLvK8","payload":{"id":"Xk2ndmqTUDPyLvK8","body":{"url":"ws://x"}}}',
        '{"type":"chat:pull-messages-send-abort","payload":{"body":{"invokeId":"x"}}}',
        '{"type":"chat:send-messages-send-stream-end","payload":{"body":{"invokeId":"x"}}}',
        '{"type":"chat:new-messages","payload":{"body":{}}}',
        '{"deliveryId":"x","hopsRemaining":0,"eventa":{"id":"x"}}',
        '{"type":"chat:nothing-send","payload":{"body":{"content":{}}}}',
        '{"type":"chat:nothing-send","payload":{"body":null}}',
        '{"type":"chat:nothing-send-abort","payload":{"body":{"invokeId":"x"}}}',
    ],
    # Asks for an answer that can be found by nothing.
    "nameless": [
        '{"type":"chat:pull-messages-send","payload":{}}',
        '{"type":"chat:pull-messages-send","payload":{"body":null}}',
        '{"type":"chat:pull-messages-send","payload":{"body":[]}}',
        '{"type":"chat:pull-messages-send","payload":{"body":"x"}}',
        '{"type":"chat:pull-messages-send","payload":{"body":{"content":{}}}}',
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":{}}}}',
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":["x"]}}}',
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":9007199254740992}}}',
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":1e300}}}',
        r'{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":"\ud800"}}}',
        r'{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":%s,"x":"\ud800"}}}'
        % ("9" * 30),
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":"%s"}}}' % ("x" * 257),
        '{"type":"chat:pull-messages-send","payload":{"body":{"invokeId":"%s"}}}' % ("x" * 900_000),
        '{"type":"chat:nothing-send","payload":{"body":{"invokeId":[]}}}',
        '{"type":"%s-send","payload":{"body":{"invokeId":"x"}}}' % ("x" * 257),
        r'{"type":"\ud800-send","payload":{"body":{"invokeId":"x"}}}',
        '{"deliveryId":"x","hopsRemaining":0,"eventa":{"id":"chat:pull-messages-send"}}',
    ],
}

ODD_IDS = {
    '""': "", "7": "7", "-1.5": "-1.5", "9007199254740991": "9007199254740991",
    "true": "true", "false": "false", "null": "null",
}  # fmt: skip
"""An `invokeId` that is no name, as JSON, and as JavaScript writes it into the id of an event."""
