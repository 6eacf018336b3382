//! A guest with all of the SDK, for the conformance tests: the key "do" of a chunk
//! says which part to use, and any other chunk comes back in its preferred
//! serialization (RFC 8949, section 4.1).
const std = @import("std");
const wasm_jobs = @import("wasm_jobs.zig");
const Raw = wasm_jobs.Raw;
const Value = wasm_jobs.Value;

pub const panic = wasm_jobs.panic;

comptime {
    wasm_jobs.guest(.{ .exec = exec, .aggregate = echo, .merge = echo, .setup = setup });
}

const Fail = struct { kind: u8, message: []const u8 };
const Log = struct { level: i32, message: []const u8 };
const Do = enum { fail, log, heartbeat, trap };

fn exec(chunk: Raw) !Value {
    switch (chunk.tryField(Do, "do") orelse return chunk.as(Value)) {
        .fail => return failure(try chunk.as(Fail)),
        .log => {
            const line = try chunk.as(Log);
            wasm_jobs.logAt(line.level, line.message);
            return .null;
        },
        .heartbeat => return .{ .bool = wasm_jobs.heartbeat() },
        .trap => @trap(),
    }
}

fn failure(asked: Fail) wasm_jobs.Error {
    if (asked.kind > 2) return wasm_jobs.fail(.permanent, "chunk.kind: unknown kind {d}", .{asked.kind});
    return wasm_jobs.fail(@enumFromInt(asked.kind), "{s}", .{asked.message});
}

fn echo(input: Value) Value {
    return input;
}

fn setup(context: Raw) !void {
    if (context.tryField(Do, "do") == .fail) return failure(try context.as(Fail));
}
