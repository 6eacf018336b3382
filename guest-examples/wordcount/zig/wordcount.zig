//! Counts the words of a chunk, like ../c/wordcount.c. Build: make -C sdk/zig
const std = @import("std");
const wasm_jobs = @import("wasm_jobs");

pub const panic = wasm_jobs.panic;

comptime {
    wasm_jobs.guest(.{ .exec = exec, .aggregate = aggregate, .merge = merge });
}

const Counts = wasm_jobs.Map([]const u8, u64);

fn exec(chunk: wasm_jobs.Raw) !Counts {
    const text = chunk.tryField(wasm_jobs.AnyString, "text") orelse chunk.tryAs(wasm_jobs.AnyString) orelse return wasm_jobs.fail(.permanent, "no text", .{});
    const lower = try std.ascii.allocLowerString(wasm_jobs.allocator, text.bytes);
    var counts = Counts{};
    var start: usize = 0;
    for (lower, 0..) |c, i| {
        if (std.ascii.isAlphanumeric(c)) continue;
        if (i > start) try add(&counts, lower[start..i], 1);
        start = i + 1;
    }
    if (start < lower.len) try add(&counts, lower[start..], 1);
    return counts;
}

fn aggregate(outputs: wasm_jobs.Items(struct { wasm_jobs.Id, Counts })) !Counts {
    var all = outputs;
    var total = Counts{};
    while (try all.next()) |entry| try addAll(&total, entry[1]);
    return total;
}

fn merge(partials: wasm_jobs.Items(Counts)) !Counts {
    var all = partials;
    var total = Counts{};
    while (try all.next()) |counts| try addAll(&total, counts);
    return total;
}

fn addAll(total: *Counts, counts: Counts) !void {
    for (counts.of.keys(), counts.of.values()) |word, n| try add(total, word, n);
}

fn add(counts: *Counts, word: []const u8, n: u64) !void {
    const count = (try counts.of.getOrPutValue(wasm_jobs.allocator, word, 0)).value_ptr;
    count.* = std.math.add(u64, count.*, n) catch return wasm_jobs.fail(.permanent, "overflow", .{});
}
