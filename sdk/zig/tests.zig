//! Tests of the SDK that need no wasm: make -C sdk/zig test
const std = @import("std");
const wasm_jobs = @import("wasm_jobs.zig");
const testing = std.testing;

const Item = struct { name: []const u8, size: u8 = 7, site: ?[]const u8, @"temp-c": f64 };

const Chunk = struct {
    id: wasm_jobs.Id,
    items: []const Item,
    limits: wasm_jobs.Map([]const u8, struct { i8, bool }),
};

const full = "a3 626964 6178 656974656d73 82 a4 646e616d65 6161 6473697465 6179 6473697a65 03 6674656d702d63 f93e00 a3 646e616d65 6161 6473697a65 07 6674656d702d63 f93e00 666c696d697473 a2 6162 8220f5 626161 8202f4";

fn unhex(text: []const u8) []const u8 {
    var digits = std.ArrayList(u8).empty;
    for (text) |c| if (c != ' ') digits.append(wasm_jobs.allocator, c) catch unreachable;
    const bytes = wasm_jobs.allocator.alloc(u8, digits.items.len / 2) catch unreachable;
    return std.fmt.hexToBytes(bytes, digits.items) catch unreachable;
}

/// Reads an item as a type and writes it, or returns the error.
fn again(comptime T: type, item: []const u8) ![]const u8 {
    const echo = struct {
        fn echo(value: T) T {
            return value;
        }
    }.echo;
    return switch (wasm_jobs.call("exec", echo, unhex(item))) {
        .output => |bytes| std.fmt.allocPrint(wasm_jobs.allocator, "{x}", .{bytes}),
        .failure => |f| f.message,
    };
}

fn expect(comptime T: type, item: []const u8, want: []const u8) !void {
    try testing.expectEqualStrings(want, try again(T, item));
}

fn expectSame(comptime T: type, item: []const u8) !void {
    const want = try std.fmt.allocPrint(wasm_jobs.allocator, "{x}", .{unhex(item)});
    try expect(T, item, want);
}

const Vector = struct { name: []const u8, bytes: []const u8, preferred: []const u8 };

fn vectors() ![]const Vector {
    const json = @embedFile("appendix_a.json");
    const File = struct { about: []const u8, vectors: []const Vector };
    const file = try std.json.parseFromSliceLeaky(File, wasm_jobs.allocator, json, .{});
    try testing.expectEqual(@as(usize, 81), file.vectors.len);
    return file.vectors;
}

test "examples of RFC 8949" {
    for (try vectors()) |v| {
        try expect(wasm_jobs.Value, v.bytes, v.preferred);
        try expectSame(wasm_jobs.Raw, v.bytes);
    }
}

test "structs go both ways" {
    try expectSame(Chunk, full);
}

test "keys that a struct does not have are skipped" {
    try expect(Item, "bf 01 9f820102ff 6161 a1c10203 646e616d65 7f6161ff 6674656d702d63 fb3ff8000000000000 ff", "a3646e616d6561616473697a65076674656d702d63f93e00");
}

test "errors say where" {
    try expect(Chunk, "01", "chunk: want a map, got an unsigned integer");
    try expect(Chunk, "a0", "chunk.id: missing");
    try expect(Chunk, "a1 626964 20", "chunk.id: want an unsigned integer or a text, got a negative integer");
    try expect(Chunk, "a2 626964 00 626964 00", "chunk.id: duplicate key");
    try expect(Chunk, "a1 656974656d73 82 a2 646e616d65 60 6674656d702d63 00 a0", "chunk.items[1].name: missing");
    try expect(Chunk, "a1 656974656d73 81 a1 6674656d702d63 6178", "chunk.items[0].temp-c: want a float, got a text");
    try expect(Chunk, "a1 656974656d73 81 a1 6473697a65 190100", "chunk.items[0].size: 256 does not fit u8");
    try expect(Chunk, "a1 666c696d697473 a2 6161 8200f4 6161 8200f4", "chunk.limits.a: duplicate key");
    try expect(Chunk, "a1 666c696d697473 a1 6161 8238fff4", "chunk.limits.a[0]: -256 does not fit i8");
    try expect(Chunk, "a1 666c696d697473 a1 6161 8101", "chunk.limits.a: want an array of 2");
    try expect(Chunk, "a1 666c696d697473 a1 6161 8301f4f4", "chunk.limits.a: want an array of 2");
    try expect(Chunk, "a1 666c696d697473 a1 01 f4", "chunk.limits.(key): want a text, got an unsigned integer");
    try expect(Chunk, "a1 626964 61ff", "chunk.id: text that is not UTF-8");
    try expect(u8, "0101", "chunk: more bytes follow the item (byte 1)");
}

test "integers fit or fail" {
    try expectSame(u8, "18ff");
    try expectSame(i8, "387f");
    try expect(i8, "3880", "chunk: -129 does not fit i8");
    try expectSame(i64, "3b7fffffffffffffff");
    try expect(i64, "3b8000000000000000", "chunk: -9223372036854775809 does not fit i64");
    try expectSame(i128, "3bffffffffffffffff");
    try expectSame(u64, "1bffffffffffffffff");
    try expect(u64, "20", "chunk: -1 does not fit u64");
    try expect(u32, "f93c00", "chunk: want an integer, got a float");
    try expect(u32, "1b0000000000000017", "17");
}

test "floats are exact or fail" {
    try expect(f64, "1b0020000000000000", "fa5a000000");
    try expect(f64, "1b0020000000000001", "chunk: 9007199254740993 does not fit f64");
    try expect(f64, "1bffffffffffffffff", "chunk: 18446744073709551615 does not fit f64");
    try expect(f64, "29", "f9c900");
    try expect(f32, "f97e01", "f97e00");
    try expect(f32, "fb3ff199999999999a", "chunk: 1.1 does not fit f32");
    try expect(f64, "f4", "chunk: want a float, got a boolean");
}

test "null, enums and strings" {
    try expect(?u8, "f7", "f6");
    try expectSame(?u8, "01");
    try expectSame(void, "f6");
    try expect(bool, "f6", "chunk: want a boolean, got null");
    try expectSame(enum { red, green }, "63726564");
    try expect([]const u8, "7f 6161 60 6162 ff", "626162");
    try expect([]const u8, "4161", "chunk: want a text, got a byte string");
    try expect(wasm_jobs.Bytes, "5f 4101 ff", "4101");
    try expect(wasm_jobs.AnyString, "61ff", "41ff");
    for ([_][]const u8{ "80", "c0af", "c328", "e08080", "eda080", "f0808080", "f4908080", "f5808080", "e6b0" }) |bad| {
        const item = try std.fmt.allocPrint(wasm_jobs.allocator, "{x}{s}", .{ 0x60 + bad.len / 2, bad });
        try expect([]const u8, item, "chunk: text that is not UTF-8");
    }
}

test "maps are written in the order of their encoded keys" {
    try expect(wasm_jobs.Map(i64, u8), "a3 2001 186403 0a02", "a30a021864032001");
    try expect(wasm_jobs.Map([]const u8, []const u8), "a3 626161 60 6162 60 60 60", "a3606061626062616160");
}

fn sum(outputs: wasm_jobs.Items(struct { wasm_jobs.Id, u32 })) !u32 {
    var all = outputs;
    var total: u32 = 0;
    while (try all.next()) |entry| total += entry[1];
    return total;
}

test "outputs one by one" {
    try testing.expectEqualSlices(u8, &.{13}, wasm_jobs.call("aggregate", sum, unhex("82 820004 82616109")).output);
    try testing.expectEqualSlices(u8, &.{13}, wasm_jobs.call("aggregate", sum, unhex("9f 820004 9f616109ff ff")).output);
    try testing.expectEqualSlices(u8, &.{0}, wasm_jobs.call("aggregate", sum, unhex("80")).output);
    const f = wasm_jobs.call("aggregate", sum, unhex("83 820004 8201f6 820201")).failure;
    try testing.expectEqualStrings("outputs[1][1]: want an integer, got null", f.message);
}

fn fields(chunk: wasm_jobs.Raw) ?[]const u8 {
    return chunk.tryField([]const u8, "a") orelse chunk.tryAs([]const u8);
}

test "fields of raw items" {
    const cases = [_][2][]const u8{ .{ "a2 6161 6178 6162 02", "6178" }, .{ "6179", "6179" }, .{ "a2 6161 6178 6161 6178", "f6" }, .{ "a1 6161 01", "f6" } };
    for (cases) |c| try testing.expectEqualSlices(u8, unhex(c[1]), wasm_jobs.call("exec", fields, unhex(c[0])).output);
}

fn refuse(n: u8) !f64 {
    if (n == 0) return error.NoReadings;
    wasm_jobs.fail(.retryable, "first {d}", .{n}) catch {};
    return wasm_jobs.fail(.permanent, "second", .{});
}

fn work(_: u8) bool {
    return wasm_jobs.heartbeat();
}

test "failures and the host" {
    const first = wasm_jobs.call("exec", refuse, unhex("01")).failure;
    try testing.expectEqual(wasm_jobs.Kind.retryable, first.kind);
    try testing.expectEqualStrings("first 1", first.message);
    try testing.expectEqualStrings("NoReadings", wasm_jobs.call("exec", refuse, unhex("00")).failure.message);
    try testing.expectEqualSlices(u8, &.{0xf5}, wasm_jobs.call("exec", work, unhex("01")).output);
    try testing.expectEqualStrings("partials: -1 does not fit u8", wasm_jobs.call("merge", work, unhex("20")).failure.message);
}

fn takeChunk(_: Chunk) void {}

/// Reports whether bytes are one item. They are read in all ways, and the written
/// value is read as the same.
fn check(bytes: []const u8) !bool {
    _ = wasm_jobs.call("exec", takeChunk, bytes);
    _ = wasm_jobs.call("aggregate", sum, bytes);
    const value = wasm_jobs.fromBytes(wasm_jobs.Value, bytes) catch return false;
    _ = try wasm_jobs.fromBytes(wasm_jobs.Raw, bytes);
    const written = try wasm_jobs.toBytes(value);
    const read = try wasm_jobs.fromBytes(wasm_jobs.Value, written);
    try testing.expectEqualSlices(u8, written, try wasm_jobs.toBytes(read));
    return true;
}

test "malformed bytes are errors" {
    var random = std.Random.DefaultPrng.init(1);
    const all = [_][]const u8{full} ++ [_][]const u8{""} ** 81;
    var seeds = all;
    for (try vectors(), seeds[1..]) |v, *s| s.* = try std.heap.page_allocator.dupe(u8, v.bytes);
    for (seeds) |seed| {
        wasm_jobs.reset();
        const bytes = try std.heap.page_allocator.dupe(u8, unhex(seed));
        for (0..bytes.len) |n| try testing.expect(!try check(bytes[0..n]));
        const changed = try std.heap.page_allocator.alloc(u8, bytes.len);
        for (0..1000) |_| {
            wasm_jobs.reset();
            @memcpy(changed, bytes);
            for (0..1 + random.random().uintLessThan(usize, 3)) |_| {
                changed[random.random().uintLessThan(usize, bytes.len)] = random.random().int(u8);
            }
            _ = try check(changed);
        }
    }
    const bad = "1c 1f 3f df ff f818 fc 5f01ff 5f5fffff 7f4161ff bf01ff 8201ff 0101 9bffffffffffffffff bb800000000000000001 5bffffffffffffffff 7affffffff00 9f 5f";
    var items = std.mem.tokenizeScalar(u8, bad, ' ');
    while (items.next()) |item| try testing.expect(!try check(unhex(item)));
    try testing.expect(!try check(""));
}

fn nested(open: []const u8, levels: usize, close: []const u8) ![]const u8 {
    var item = std.ArrayList(u8).empty;
    for (0..levels) |_| try item.appendSlice(wasm_jobs.allocator, open);
    try item.appendSlice(wasm_jobs.allocator, "00");
    for (0..levels) |_| try item.appendSlice(wasm_jobs.allocator, close);
    return again(wasm_jobs.Value, item.items);
}

test "nesting is bounded" {
    const deeper = "malformed CBOR: nested deeper than 258 levels";
    for ([_][2][]const u8{ .{ "81", "" }, .{ "9f", "ff" }, .{ "c1", "" }, .{ "a100", "" }, .{ "a1", "00" } }) |shape| {
        wasm_jobs.reset();
        try testing.expect(std.mem.indexOf(u8, try nested(shape[0], 258, shape[1]), deeper) == null);
        try testing.expect(std.mem.indexOf(u8, try nested(shape[0], 259, shape[1]), deeper) != null);
        try testing.expect(std.mem.indexOf(u8, try nested(shape[0], 100000, shape[1]), deeper) != null);
    }
}
