// See panic.c.
const wasm_jobs = @import("wasm_jobs");

pub const panic = wasm_jobs.panic;

comptime {
    wasm_jobs.guest(.{ .exec = exec });
}

noinline fn pick(table: []const u64, i: usize) u64 {
    return table[i];
}

fn exec(i: u64) u64 {
    wasm_jobs.log(.info, "before", .{});
    return pick(&[_]u64{ 1, 2, 3 }, @intCast(i));
}
