import { DuckDBInstance } from '@duckdb/node-api';
const db = await DuckDBInstance.create(':memory:'); const c = await db.connect();
await c.run("set timezone='UTC'");
const q = `select * from (values
 (true, (-128)::tinyint, (-32768)::smallint, (-2147483648)::integer, (-9223372036854775808)::bigint, 255::utinyint, 65535::usmallint, 4294967295::uinteger, 18446744073709551615::ubigint, 1.5::float, 0.1::double, 123.45::decimal(5,2), (-1234567890123456.789)::decimal(30,3), 'text é', '\\x00\\xFF'::blob, '550e8400-e29b-41d4-a716-446655440000'::uuid, date '1969-12-31', time '12:34:56.000001', timestamp '2024-02-29 23:59:59.123456', timestamptz '1969-12-31 23:59:59.5+00', timestamp_ms '2000-01-01 00:00:00.001', timestamp_ns '2000-01-01 00:00:00.000000001', [1, null, 3], {'a': 1, 'b': [{'c': 'x'}]}, map {'k': 1, 'l': null}, 'a'::enum('a','b'), '{"j":1}'::json),
 (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
 (false, 1, 2, 3, 4, 5, 6, 7, 8, 'infinity', '-infinity', 0, 0, '', '', '00000000-0000-0000-0000-000000000000', date '9999-12-31', time '00:00:00', timestamp '0001-01-01 00:00:00', timestamptz '2024-01-01 00:00:00+00', timestamp_ms '1970-01-01', timestamp_ns '1970-01-01', [], {'a': null, 'b': []}, map {}, 'b', 'null')
) t(bool, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, dec5, dec30, text, blob, uuid, date, time, ts, tstz, ts_ms, ts_ns, list, struct, map, enum, json)`;
for (const codec of ['snappy','gzip','zstd','brotli','lz4_raw','uncompressed']) await c.run(`copy (${q}) to '${process.argv[2]}/duckdb_${codec}.parquet' (format parquet, codec '${codec}')`);
await c.run(`copy (${q}) to '${process.argv[2]}/duckdb_v2.parquet' (format parquet, parquet_version v2, codec 'zstd')`);
await c.run(`copy (select i, 'same' s, (i%3)::varchar m, case when i%7=0 then null else i*0.5 end d from range(3000) t(i)) to '${process.argv[2]}/duckdb_many.parquet' (format parquet, parquet_version v2, row_group_size 2048)`);
