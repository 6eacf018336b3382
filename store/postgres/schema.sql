-- The schema of wasm-jobs. It is made in one transaction, with only the schema in
-- search_path. Outputs are the truth; slots and pending are hints.

-- The time since a server serves: a start of it, or the promotion of a standby.
create function serving() returns text
language sql volatile as $$
	select extract(epoch from pg_postmaster_start_time()) || ' ' || coalesce(extract(epoch from pg_last_xact_replay_timestamp()), 0)
$$;

create table meta (
	one bool primary key default true check (one), program text not null, version int not null,
	serving text not null default '', since timestamptz not null default '-infinity',  -- see expire
	compact_after timestamptz not null default '-infinity'   -- see compact
);
insert into meta (program, version, serving, since) values ('wasm-jobs', 1, serving(), pg_postmaster_start_time());

-- Outputs --------------------------------------------------------------------------

create table actions (id int generated always as identity primary key, digest bytea not null unique);

create table packs (
	id bigint generated always as identity primary key,
	action int not null,
	job int,                     -- job of the lease; null if a process put the pack without one
	first bigint, count int not null,
	bytes bigint not null,       -- of the outputs
	low bytea not null, high bytea not null,   -- orders of the first and the last record
	chunks bytea not null,       -- digests of the chunks
	heads bytea not null,        -- order, fuel and size of each output
	data bytea not null,         -- outputs
	sum bytea not null,          -- see pack_sum
	xid xid8 not null default pg_current_xact_id(),
	check (count between 0 and 65536)
);
alter table packs alter column data set storage external, alter column heads set storage external, alter column chunks set storage external;
create function pack_sum(p_chunks bytea, p_heads bytea, p_data bytea) returns bytea
language sql immutable as $$ select sha256(sha256(p_chunks) || sha256(p_heads) || sha256(p_data)) $$;

create index packs_by_action on packs (action, xid);
create index packs_by_job on packs (job, first) where job is not null;

-- Jobs -----------------------------------------------------------------------------

create sequence begun;

create table jobs (
	n int generated always as identity primary key,
	id bytea not null unique,
	action int not null, derived bytea[] not null, input bytea not null, total bigint not null,
	spec text not null, name text not null default '',
	created timestamptz not null default clock_timestamp(), latest bigint not null,
	-- For jobs that workers share; state is '' if one process runs the job.
	state text not null default '' check (state in ('', 'uploading', 'active', 'paused', 'cancelled', 'succeeded', 'incomplete', 'broken')),
	priority int not null default 127 check (priority between 0 and 255),
	max_concurrency int not null default 0 check (max_concurrency >= 0),
	ended timestamptz, error text not null default '', broken_by text not null default '',
	engine text not null default '', run int not null default 0,
	retries int not null default 3, classes text[] not null default '{}', max_requeues int not null default 100,
	backoff_ms bigint not null default 50, backoff_max_ms bigint not null default 5000, deterministic bool not null default false,
	max_failures bigint, stopping bool not null default false,
	granted bigint not null default 0, expired bigint not null default 0, returned bigint not null default 0,
	stolen bigint not null default 0, duplicated bigint not null default 0, late bigint not null default 0,
	mended bigint not null default 0, executions bigint not null default 0, conflicts bigint not null default 0,
	sent bigint not null default 0, skipped bigint not null default 0,
	fold_losses int not null default 0   -- of the lease on a fold of one call
) with (fillfactor = 50);

create table ids (job int not null, n int not null, data bytea not null, primary key (job, n));
alter table ids alter column data set storage external;

create table runs (
	job int not null, number int not null, token bytea not null,
	started timestamptz not null default clock_timestamp(), seen timestamptz not null default clock_timestamp(), ended timestamptz,
	info text not null, active text, report text, primary key (job, number)
) with (fillfactor = 50);
create unique index runs_by_token on runs (job, token);

create table spans (
	job int not null, first bigint not null, run int not null, count int not null,
	chunks bytea,                -- digests; null if the pack of a lease has them
	detail bytea,
	reused bool not null default false, primary key (job, first, run)
);
alter table spans alter column chunks set storage external;
create index spans_reused on spans (job, first) where reused;

create table attempts (
	n bigint generated always as identity primary key, job int not null, run int not null, chunk bigint not null,
	final bool not null, class text not null, detail text not null
);
create index attempts_by_chunk on attempts (job, chunk, n);

-- The calls of a fold that is leased in parts: of aggregate on level 0, of merge above.
-- output is null until a call was made. Level 0 has, of the outputs of its chunks, the sum of
-- their fuel and the nodes of their Merkle tree.
create table folds (
	job int not null, level int not null, n int not null,
	first bigint not null, last bigint not null,   -- chunks, or calls of the level below
	output bytea, fuel bigint not null default 0, outputs_fuel bigint not null default 0, nodes bytea, sum bytea,
	alone bool not null default false, losses int not null default 0,   -- see lost_fold
	primary key (job, level, n)
);
alter table folds alter column output set storage external;

-- Inputs ---------------------------------------------------------------------------

create table blobs (digest bytea primary key, size bigint not null, data bytea, made timestamptz not null default now());
alter table blobs alter column data set storage external;
create table segments (job int not null, first bigint not null, count int not null, digest bytea not null, primary key (job, first));
create table files (job int not null, role text not null, n int not null, digest bytea not null, primary key (job, role, n));

-- Hints ----------------------------------------------------------------------------

-- compact truncates these tables together, and in an older snapshot they are then empty. A
-- statement that names one of them locks it before it takes its snapshot, so it has all rows,
-- as has each later statement of its transaction. A stable function has the snapshot of its
-- caller, who must name or have named one too.

create table workers (
	id bigint generated always as identity primary key, token bytea not null unique,
	name text not null, app text not null, host text not null, pid int not null, engine text not null,
	slots int not null, lease_ms bigint not null, schema int not null default 0, started timestamptz not null default clock_timestamp(),
	seen timestamptz not null default clock_timestamp(), gone bool not null default false,
	chunks bigint not null default 0, lost bigint not null default 0, seconds float8 not null default 0
) with (fillfactor = 50);

create table slots (
	worker bigint not null, slot int not null,
	key bigint not null default 0, seq bigint not null default 0,
	job int, kind int not null default 0, first bigint not null default 0, last bigint not null default 0, done bigint not null default 0,
	granted_job int, granted_first bigint not null default 0, granted_last bigint not null default 0,
	since timestamptz, until timestamptz, announced bool not null default false, at bigint,
	executed bigint not null default 0,
	primary key (worker, slot)
) with (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create table pending (
	n bigint generated always as identity primary key, job int not null, first bigint not null, last bigint not null,
	announced bool not null default false, due timestamptz
) with (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index pending_by_job on pending (job);

create table histories (
	job int not null, chunk bigint not null, failures int not null default 0, requeues int not null default 0,
	losses int not null default 0, trap bytea, failed bool not null default false, primary key (job, chunk)
);

create table events (
	n bigint generated always as identity primary key, job int not null, time timestamptz not null default clock_timestamp(),
	kind text not null, first bigint, last bigint, worker text, why text,
	executed bigint not null default 0   -- attempts whose end the worker reported, if its lease ended
);
create index events_by_job on events (job, n);

create sequence keys;

-- Leases ---------------------------------------------------------------------------

-- What each lease calls is plpgsql, or small enough to become part of the caller's query: a
-- session plans a function in sql again at each call. It has the search_path of its caller,
-- which would cost more to set than some of its queries.

create function tell(p_job int, p_kind text, p_first bigint, p_last bigint, p_worker bigint, p_why text, p_executed bigint default 0) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
begin
	insert into events (job, kind, first, last, worker, why, executed)
	values (p_job, p_kind, p_first, p_last - 1, (select name from workers where id = p_worker), p_why, p_executed);
end $$;

-- A slot counts if its deadline is not over and its worker is alive, or if it does not expire
-- yet. A row with a deadline that no lease can have is damaged.
create function counts(s slots, w workers, m meta) returns bool
language sql stable as $$
	select s.until < now() + interval '2 hours' and not w.gone
		and (s.until > now() and w.seen > now() - greatest(w.lease_ms, 2000) * interval '1 millisecond'
			or now() < m.since + greatest(w.lease_ms, 2000) * interval '1 millisecond')
$$;

create function active_slots(p_job int) returns setof slots
language sql stable security definer set search_path = @SCHEMA@, pg_temp as $$
	select s.* from slots s join workers w on w.id = s.worker, meta m where s.job = p_job and counts(s, w, m)
$$;

-- The chunks of a job that have no output and have not failed. Packs of a job do not overlap
-- (see worker_settle): of those that begin before the span, only the last can reach into it.
create function uncovered(p_job int, p_first bigint, p_last bigint) returns int8multirange
language plpgsql stable as $$
begin
	return int8multirange(int8range(p_first, greatest(p_first, p_last))) - coalesce((
		select range_agg(r) from (
			select int8range(p.first, p.first + p.count) r from packs p where p.job = p_job and p.first >= p_first and p.first < p_last
			union all (select int8range(p.first, p.first + p.count) from packs p where p.job = p_job and p.first < p_first order by p.first desc limit 1)
			union all select int8range(s.first, s.first + s.count) from spans s where s.job = p_job and s.reused and s.first < p_last and s.first + s.count > p_first
			union all select int8range(h.chunk, h.chunk + 1) from histories h where h.job = p_job and h.failed and h.chunk >= p_first and h.chunk < p_last) u), '{}');
end $$;

-- Makes the uncovered chunks of a span pending, and tells workers without work, which may
-- ask only every few seconds.
create function give_back(p_job int, p_first bigint, p_last bigint, p_announced bool) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
begin
	if p_first >= p_last then return; end if;
	if exists (select from jobs where n = p_job and state in ('active', 'paused') and not stopping) then
		insert into pending (job, first, last, announced)
		select p_job, lower(r), upper(r), p_announced
		from unnest(uncovered(p_job, greatest(p_first, 0), least(p_last, (select total from jobs where n = p_job)))) r;
		if found then perform notify_work(); end if;
	end if;
end $$;

create function fail_chunk(p_job int, p_chunk bigint, p_class text, p_detail jsonb) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j jobs;
begin
	select * into j from jobs where n = p_job;
	update histories set failed = true where job = p_job and chunk = p_chunk;
	insert into attempts (job, run, chunk, final, class, detail) values (p_job, j.run, p_chunk, true, p_class, p_detail::text);
	if j.max_failures is not null and (select count(*) from histories where job = p_job and failed) > j.max_failures then
		update jobs set stopping = true where n = p_job;
		delete from pending where job = p_job;
	end if;
end $$;

-- Decides whether a chunk is retried or fails after a failed attempt, as
-- host/queue.Decide does.
create function failed_attempt(p_job int, p_chunk bigint, p_class text, p_trap bytea, p_detail jsonb) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j jobs; h histories; wait float8; tries int; message text := p_detail->>'message'; fails bool := false;
begin
	select * into j from jobs where n = p_job;
	if not exists (select from unnest(uncovered(p_job, p_chunk, p_chunk + 1))) then return; end if;
	insert into histories (job, chunk) values (p_job, p_chunk) on conflict do nothing;
	select * into h from histories where job = p_job and chunk = p_chunk for update;
	if p_class = 'requeued' then
		h.requeues := h.requeues + 1;
		fails := h.requeues > j.max_requeues;
		if fails then message := format('returned to the queue %s times: %s', h.requeues, message); end if;
		wait := j.backoff_ms;
	else
		h.failures := h.failures + 1;
		fails := true;
		if not p_class = any(j.classes) then null;
		elsif not j.deterministic and p_trap is not null and p_trap = h.trap then message := message || ' (the same twice: deterministic)';
		elsif h.failures <= j.retries then fails := false;
		end if;
		h.trap := p_trap;
		wait := least(j.backoff_max_ms, j.backoff_ms * 2.0 ^ least(h.failures - 1, 40)) * (0.5 + random() / 2);
	end if;
	update histories set failures = h.failures, requeues = h.requeues, trap = h.trap where job = p_job and chunk = p_chunk;
	tries := h.failures + h.requeues;
	p_detail := p_detail || jsonb_build_object('attempt', tries, 'message', message);
	if fails then
		perform fail_chunk(p_job, p_chunk, p_class, p_detail);
	else
		insert into attempts (job, run, chunk, final, class, detail) values (p_job, j.run, p_chunk, false, p_class, p_detail::text);
		if not j.stopping and j.state in ('active', 'paused') then
			insert into pending (job, first, last, due) values (p_job, p_chunk, p_chunk + 1, clock_timestamp() + wait * interval '1 millisecond');
		end if;
	end if;
end $$;

-- Handles a chunk whose worker vanished while only that chunk ran.
create function lost_chunk(p_job int, p_chunk bigint, p_worker bigint) returns bool
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare deaths int;
begin
	if not exists (select from unnest(uncovered(p_job, p_chunk, p_chunk + 1))) then return false; end if;
	insert into histories (job, chunk, losses) values (p_job, p_chunk, 1)
	on conflict (job, chunk) do update set losses = histories.losses + 1 returning losses into deaths;
	perform tell(p_job, 'lost', p_chunk, p_chunk + 1, p_worker, null);
	if deaths < 3 then return false; end if;
	perform fail_chunk(p_job, p_chunk, 'lost', jsonb_build_object('class', 'lost', 'attempt', deaths,
		'message', format('%s workers died or vanished while they ran this chunk', deaths), 'end', clock_timestamp(), 'start', clock_timestamp()));
	return true;
end $$;

-- Handles a lease on a fold, or on calls of it, whose worker vanished. Calls that were lost are
-- leased alone. If three workers vanish while they make only one call, the job is broken.
create function lost_fold(s slots) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare deaths int; at_level int := 0;
begin
	if s.kind = 2 then
		update folds f set alone = true where f.job = s.job and f.n >= s.done and f.n < s.last and f.output is null;
		if s.last - s.done = 1 then
			update folds f set losses = f.losses + 1 where f.job = s.job and f.n = s.done and f.output is null returning f.losses, f.level into deaths, at_level;
		end if;
	elsif not exists (select from folds f where f.job = s.job) then -- otherwise its holder calls no guest
		update jobs j set fold_losses = j.fold_losses + 1 where j.n = s.job returning j.fold_losses into deaths;
	end if;
	if deaths >= 3 then
		update jobs set stopping = true, broken_by = 'fold',
			error = format('%s failed: lost: %s workers died or vanished while they made this call', case when at_level = 0 then 'aggregate' else 'merge' end, deaths)
		where n = s.job and state in ('active', 'paused') and broken_by = '';
		delete from pending where job = s.job;
	end if;
end $$;

-- Ends the lease of a slot; the chunks that are left become pending. A lease that the worker
-- does not name, because it did not learn of it in time, is lost, but no chunk is to blame.
create function release_slot(s slots, p_why text) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare lost bool := p_why = 'expired';
begin
	if s.job is null then return; end if;
	update slots set job = null, until = null, at = null where worker = s.worker and slot = s.slot;
	if s.kind = 0 and exists (select from jobs where n = s.job) then
		if lost then
			update jobs set expired = expired + 1 where n = s.job;
			update workers set lost = workers.lost + 1 where id = s.worker;
			if s.announced and s.at is not null then perform lost_chunk(s.job, s.at, s.worker);
			elsif s.last - s.done = 1 then perform lost_chunk(s.job, s.done, s.worker);
			end if;
		elsif p_why = 'unnamed' then
			update jobs set expired = expired + 1 where n = s.job;
		elsif s.last > s.done then
			update jobs set returned = returned + 1 where n = s.job;
		end if;
		perform give_back(s.job, s.first, s.last, lost or s.announced);
		perform tell(s.job, 'lease_ended', s.first, s.last, s.worker, case p_why when 'unnamed' then 'expired' else p_why end, s.executed);
	elsif lost then
		update workers set lost = workers.lost + 1 where id = s.worker;
		perform lost_fold(s);
	end if;
end $$;

-- Ends leases that have expired, leases of workers that vanished, and rows with values that
-- no lease has. The caller, p_worker, is alive. While the server was away nobody could renew
-- a lease, so no lease expires before the time of a lease has passed since a worker was first
-- served after a start of the server or a failover.
create function expire(p_worker bigint) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare s slots; began timestamptz;
begin
	update meta m set serving = serving(), since = clock_timestamp() where m.serving <> serving();
	select m.since into began from meta m;
	for s in select x.* from slots x left join workers w on w.id = x.worker
		where x.job is not null and (x.until is null or x.until >= now() + interval '2 hours' or w.id is null or w.gone
			or x.worker <> p_worker and now() >= began + greatest(w.lease_ms, 2000) * interval '1 millisecond'
				and (x.until <= now() or w.seen <= now() - greatest(w.lease_ms, 2000) * interval '1 millisecond'))
		for update of x skip locked
	loop
		-- a lease that was granted while its worker left was never begun
		perform release_slot(s, case when exists (select from workers w where w.id = s.worker and w.gone) then 'returned' else 'expired' end);
	end loop;
end $$;

-- Takes up to p_want pending chunks of a job. first is null if there are none.
create function take_pending(p_job int, p_total bigint, p_want bigint, p_blocking bool, out first bigint, out last bigint, out announced bool)
language plpgsql as $$
declare p pending; gap int8multirange;
begin
	for i in 1..100 loop
		if p_blocking then
			select q.* into p from pending q where q.job = p_job and (q.due is null or q.due not between clock_timestamp() and clock_timestamp() + interval '1 day') order by q.due, q.first limit 1 for update;
		else
			select q.* into p from pending q where q.job = p_job and (q.due is null or q.due not between clock_timestamp() and clock_timestamp() + interval '1 day') order by q.due, q.first limit 1 for update skip locked;
		end if;
		if not found then return; end if;
		first := greatest(p.first, 0);
		last := least(p.last, p_total, first + p_want);
		if last < least(p.last, p_total) then
			update pending q set first = take_pending.last where q.n = p.n;
		else
			delete from pending q where q.n = p.n;
		end if;
		if first >= last then first := null; continue; end if; -- a damaged row
		gap := uncovered(p_job, first, last);
		if gap = int8multirange(int8range(first, last)) then announced := p.announced; return; end if;
		insert into pending (job, first, last, announced) select p_job, lower(r), upper(r), p.announced from unnest(gap) r;
		first := null;
	end loop;
end $$;

-- Takes half of the remaining chunks of the slowest lease, or leases a single slow chunk
-- a second time. A holder has executed more since it last told how far it is, and goes on
-- until it learns of the theft; one that has not told anything yet is not slow.
create function steal(p_job int, p_worker bigint, p_slot int, out first bigint, out last bigint, out announced bool)
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare s slots; told timestamptz; each float8; usual float8; by_now bigint;
begin
	announced := false;
	for s in select a.* from active_slots(p_job) a where a.kind = 0 and (a.worker, a.slot) <> (p_worker, p_slot) and a.last > a.done and not a.announced
		order by (a.last - a.done) * extract(epoch from now() - a.since) / greatest(a.done - a.first, 1) desc limit 4
	loop
		select x.* into s from slots x where x.worker = s.worker and x.slot = s.slot and x.key = s.key and x.job = p_job for update skip locked;
		if not found then continue; end if;
		select s.until - w.lease_ms * interval '1 millisecond' into told from workers w where w.id = s.worker;
		each := greatest(extract(epoch from told - s.since), 0.001) / greatest(s.done - s.first, 1);
		by_now := least(s.last, s.done + floor(greatest(extract(epoch from clock_timestamp() - told), 0) / each)::bigint);
		if told > s.since + interval '10 milliseconds' and s.last - by_now > 1 and (s.last - by_now) * each > 2.5 then -- the holder learns of it with its next heartbeat
			first := by_now + (s.last - by_now + 1) / 2;
			last := s.last;
			update slots x set last = steal.first where x.worker = s.worker and x.slot = s.slot;
			update jobs set stolen = stolen + 1 where n = p_job;
			perform tell(p_job, 'lease_ended', first, last, s.worker, 'stolen');
			return;
		end if;
		-- A chunk is leased a second time after three times the time that nearly all leases of one chunk took, and never a third time.
		select coalesce(3 * percentile_cont(0.99) within group (order by extract(epoch from e.time - b.time)), 10) into usual
		from (select * from events where job = p_job and kind = 'lease_ended' and why = 'done' order by n desc limit 100) e
		join lateral (select time from events where job = p_job and kind = 'leased' and events.first = e.first and events.n < e.n order by n desc limit 1) b on true;
		if s.last - s.done = 1 and s.worker <> p_worker and extract(epoch from clock_timestamp() - s.since) > greatest(usual, 5)
			and not exists (select from active_slots(p_job) o where (o.worker, o.slot) <> (s.worker, s.slot) and o.first <= s.done and o.last > s.done) then
			first := s.done;
			last := s.last;
			update jobs set duplicated = duplicated + 1 where n = p_job;
			return;
		end if;
	end loop;
	first := null;
end $$;

-- Computes the pending spans of a job that seems out of work again. It returns the number of
-- spans that it added.
create function mend(p_job int) returns int
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j jobs; gap int8multirange; spans int;
begin
	select * into j from jobs where n = p_job;
	if j.stopping then return 0; end if;
	gap := uncovered(p_job, 0, j.total);
	if isempty(gap) then return 0; end if;
	delete from spans s where s.job = p_job and not s.reused and not exists (
		select from packs p where p.job = p_job and p.first <= s.first and p.first > s.first - 65537 and p.first + p.count >= s.first + s.count);
	insert into pending (job, first, last) select p_job, lower(r), upper(r) from unnest(gap) r;
	get diagnostics spans = row_count;
	update jobs set mended = mended + spans where n = p_job;
	perform tell(p_job, 'mended', lower(r), upper(r), null, null) from unnest(gap) r;
	return spans;
end $$;

-- Makes the pending spans of a job that begins or continues: several for each of 64 lanes,
-- so that workers do not wait for the same row. Chunks of leases that have not ended are
-- left out: they become pending when the leases end.
create function spread(p_job int) returns void
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare total bigint := (select jobs.total from jobs where n = p_job); lane bigint;
begin
	delete from pending where job = p_job;
	lane := greatest(1, (total + 63) / 64);
	insert into pending (job, first, last)
	select p_job, greatest(lower(r), l * lane), least(upper(r), (l + 1) * lane)
	from unnest(uncovered(p_job, 0, total)
		- coalesce((select range_agg(int8range(s.first, s.last)) from active_slots(p_job) s where s.kind = 0 and s.first < s.last), '{}')) r, lateral generate_series(lower(r) / lane, (upper(r) - 1) / lane) l;
end $$;

-- Ends a broken job when no slot works on it any more.
create function end_broken(p_job int) returns void
language sql set search_path = @SCHEMA@, pg_temp as $$
	update runs set report = json_build_object('state', 'broken', 'error', j.error)::text, ended = clock_timestamp(), seen = clock_timestamp()
	from jobs j where j.n = p_job and runs.job = j.n and runs.number = j.run;
	update jobs set state = 'broken', ended = clock_timestamp() where n = p_job;
$$;

-- The calls of a fold that were not made. All are on the highest level; others are damaged.
create function open_calls(p_job int) returns setof folds
language sql stable as $$
	select f.* from folds f where f.job = p_job and f.output is null and f.level = (select max(g.level) from folds g where g.job = p_job)
$$;

-- Takes calls of a fold that nobody leases. The caller has the lock of the fold.
create function take_calls(p_job int, out first bigint, out last bigint)
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare free int8multirange; waits bigint; all_slots bigint;
begin
	select range_agg(int8range(f.n, f.n + 1)), count(*) into free, waits from open_calls(p_job) f;
	select free - coalesce(range_agg(int8range(s.done, s.last)), '{}') into free from active_slots(p_job) s where s.kind = 2 and s.done < s.last;
	select sum(w.slots) into all_slots from workers w where not w.gone and w.seen > now() - greatest(w.lease_ms, 2000) * interval '1 millisecond';
	if isempty(free) then return; end if;
	select lower(r) into first from unnest(free) r order by 1 limit 1;
	select least(upper(r), take_calls.first + greatest(1, least(64, waits / (2 * greatest(1, all_slots))))) into last from unnest(free) r order by lower(r) limit 1;
	select least(take_calls.last, min(case when f.n = take_calls.first then f.n + 1 else f.n end)) into last
	from open_calls(p_job) f where f.alone and f.n >= take_calls.first;
end $$;

-- Gives a slot a lease; s is its row, which is locked, or null. If there is no work, the slot holds none, and key is 0.
create function grant_lease(w workers, s slots, p_slot int, p_want jsonb, p_only bytea,
	out key bigint, out job int, out kind int, out first bigint, out last bigint, out announced bool, out until timestamptz, out version bigint)
language plpgsql as $$
declare c record; taken record; want bigint; left_over bigint; waits bool; lowest bool := random() < 0.05;
begin
	key := 0;
	if s.worker is null then
		insert into slots (worker, slot) values (w.id, p_slot) on conflict do nothing;
		select * into s from slots x where x.worker = w.id and x.slot = p_slot for update;
	end if;
	if s.job is not null then perform release_slot(s, 'returned'); end if;
	for c in
		select j.n, j.total, j.latest, j.max_concurrency, j.stopping, j.broken_by, coalesce(a.active, 0) active from jobs j
		left join (
			select coalesce(x.job, x.granted_job) of, max(x.since) served, count(*) filter (where x.job is not null and counts(x, o, m)) active
			from slots x left join workers o on o.id = x.worker, meta m group by 1) a on a.of = j.n
		where j.state = 'active' and (p_only is null or j.id = p_only) and (j.engine = '' or j.engine = w.engine)
			and (j.max_concurrency = 0 or coalesce(a.active, 0) < j.max_concurrency) and coalesce((p_want->>(j.n::text))::bigint, 1) > 0
		order by case when lowest then -j.priority else j.priority end desc, coalesce(a.active, 0), a.served nulls first, j.n -- equal jobs take turns
	loop
		if c.max_concurrency > 0 then
			perform pg_advisory_xact_lock(1464814594, c.n);
			perform expire(w.id); -- a lease that is over counts until its end is recorded
			if (select count(*) from slots x where x.job = c.n) >= c.max_concurrency then continue; end if;
		end if;
		select count(*) > 0, coalesce(sum(greatest(0, p.last - p.first)), 0) into waits, left_over from pending p where p.job = c.n;
		kind := 0;
		first := null;
		if waits then
			want := coalesce((p_want->>(c.n::text))::bigint, 1);
			-- Leases become shorter towards the end, but a lease that is too short costs more than it saves.
			want := greatest(1, least(want, 16384, greatest(want / 16, left_over / (4 * (c.active + 1)))));
			taken := take_pending(c.n, c.total, want, false);
			first := taken.first;
			last := taken.last;
			announced := taken.announced;
			if first is null then
				if exists (select from pending p where p.job = c.n and (p.due is null or p.due not between clock_timestamp() and clock_timestamp() + interval '1 day')) then
					select t.first, t.last, t.announced into first, last, announced from take_pending(c.n, c.total, want, true) t;
				end if;
			end if;
		end if;
		if first is null and not waits and c.active > 0 and not c.stopping then
			select t.first, t.last, t.announced into first, last, announced from steal(c.n, w.id, p_slot) t;
			if first is not null then
				select lower(r), upper(r) into first, last from unnest(uncovered(c.n, greatest(first, 0), least(last, c.total))) r order by 1 limit 1;
			end if;
		end if;
		if first is not null then null; -- and the next condition is not planned
		elsif not waits and not c.stopping and exists (select from open_calls(c.n)) then
			if not pg_try_advisory_xact_lock(1464814595, c.n) then continue; end if;
			perform expire(w.id);
			if exists (select from jobs where n = c.n and stopping) then continue; end if;
			kind := 2;
			announced := false;
			select t.first, t.last into first, last from take_calls(c.n) t;
		elsif not waits and c.active = 0 then
			if not pg_try_advisory_xact_lock(1464814595, c.n) then continue; end if;
			perform expire(w.id);
			if exists (select from active_slots(c.n)) or exists (select from pending p where p.job = c.n)
				or not exists (select from jobs where n = c.n and state = 'active' and broken_by = c.broken_by) then continue; end if;
			if c.broken_by <> '' then
				perform end_broken(c.n);
				continue;
			end if;
			if mend(c.n) > 0 then
				want := greatest(1, coalesce((p_want->>(c.n::text))::bigint, 1));
				select t.first, t.last, t.announced into first, last, announced from take_pending(c.n, c.total, want, false) t;
			else
				kind := 1;
				first := 0;
				last := c.total;
				announced := false;
			end if;
		end if;
		if first is null then continue; end if;
		key := nextval('keys');
		job := c.n;
		version := c.latest;
		until := clock_timestamp() + w.lease_ms * interval '1 millisecond';
		update slots x set key = grant_lease.key, job = c.n, kind = grant_lease.kind, first = grant_lease.first, last = grant_lease.last,
			done = grant_lease.first, granted_job = c.n, granted_first = grant_lease.first, granted_last = grant_lease.last,
			since = clock_timestamp(), until = grant_lease.until, announced = grant_lease.announced, at = null, executed = 0
		where x.worker = w.id and x.slot = p_slot;
		if kind = 0 then
			insert into events (job, kind, first, last, worker) values (c.n, 'leased', grant_lease.first, grant_lease.last - 1, w.name);
		end if;
		return;
	end loop;
end $$;

-- Functions for workers ---------------------------------------------------------------

create function worker_register(p_token bytea, p_name text, p_app text, p_host text, p_pid int, p_engine text, p_slots int, p_lease_ms bigint, p_schema int) returns bigint
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare me bigint;
begin
	insert into workers (token, name, app, host, pid, engine, slots, lease_ms, schema)
	values (p_token, left(p_name, 200), left(p_app, 200), left(p_host, 200), p_pid, p_engine, least(greatest(p_slots, 1), 4096), least(greatest(p_lease_ms, 2000), 3600000), p_schema)
	on conflict (token) do update set seen = clock_timestamp(), gone = false returning id into me;
	return me;
end $$;

create function own_worker(p_worker bigint, p_token bytea) returns workers
language plpgsql as $$
declare w workers;
begin
	select * into w from workers where id = p_worker and token = p_token;
	if not found then
		raise exception 'unknown worker' using errcode = 'WJ001';
	end if;
	if w.schema <> 1 then
		raise exception 'the database has schema version 1, and this worker needs version %: start the worker of the present release', w.schema using errcode = '42501';
	end if;
	return w;
end $$;

create function worker_next(p_worker bigint, p_token bytea, p_slot int, p_want jsonb, p_only bytea,
	out key bigint, out job int, out kind int, out first bigint, out last bigint, out announced bool, out until timestamptz, out version bigint)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp set plan_cache_mode = force_generic_plan as $$
declare w workers := own_worker(p_worker, p_token); s slots;
begin
	perform set_config('synchronous_commit', 'off', true);
	select * into s from slots x where x.worker = p_worker and x.slot = p_slot for update;
	select g.* into key, job, kind, first, last, announced, until, version from grant_lease(w, s, p_slot, p_want, p_only) g;
end $$;

-- Puts packs and failures of a lease, ends the lease if asked to, and gives the next one if
-- asked to. verdict: 'done'; 'gone' if the slot does not hold the lease; 'overlap' if outputs
-- are there already, and nothing was changed.
create function worker_settle(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_seq bigint,
	p_firsts bigint[], p_counts int[], p_bytes bigint[], p_lows bytea[], p_highs bytea[], p_chunks bytea[], p_heads bytea[], p_details bytea[], p_datas bytea[], p_sums bytea[],
	p_failures jsonb, p_done bigint, p_executed bigint, p_seconds float8, p_ends bool, p_why text, p_next bool, p_want jsonb, p_only bytea,
	out verdict text, out key bigint, out job int, out kind int, out first bigint, out last bigint, out announced bool, out until timestamptz, out version bigint)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp set plan_cache_mode = force_generic_plan as $$
declare w workers := own_worker(p_worker, p_token); s slots; held slots; j jobs; g record; lane bigint; f jsonb; i int; was bool;
begin
	verdict := 'done';
	key := 0;
	select * into s from slots x where x.worker = p_worker and x.slot = p_slot for update; -- a request that is repeated waits for the first
	was := found and s.seq = p_seq;
	if not was then
		if s.key is distinct from p_key or s.granted_job is null then verdict := 'gone';
		else
			select * into j from jobs where n = s.granted_job;
			if not found then verdict := 'gone'; end if;
		end if;
	end if;
	if not was and verdict = 'done' then
		lane := greatest(1, (j.total + 63) / 64);
		if cardinality(p_firsts) > 0 then perform pg_advisory_xact_lock_shared(1464814592, j.action); end if;
		for i in 1..cardinality(p_firsts) loop
			if p_firsts[i] < 0 or p_firsts[i] + p_counts[i] > j.total or p_firsts[i] < s.granted_first or p_firsts[i] + p_counts[i] > s.granted_last then
				verdict := 'gone'; -- the slot holds another lease, or its row is damaged
				exit;
			end if;
			if p_counts[i] < 1 or pack_sum(p_chunks[i], p_heads[i], p_datas[i]) <> p_sums[i] or length(p_chunks[i]) <> 32 * p_counts[i] then
				raise exception 'a pack is not one of the lease' using errcode = '42501';
			end if;
			perform pg_advisory_xact_lock(1464814593, (j.n * 64 + l)::int) from generate_series(p_firsts[i] / lane, (p_firsts[i] + p_counts[i] - 1) / lane) l;
			if exists (select from packs p where p.job = j.n and p.first >= p_firsts[i] and p.first < p_firsts[i] + p_counts[i])
				or (select p.first + p.count > p_firsts[i] from packs p where p.job = j.n and p.first < p_firsts[i] order by p.first desc limit 1) then
				verdict := 'overlap';
			end if;
		end loop;
	end if;
	if not was and verdict = 'done' then
		for i in 1..cardinality(p_firsts) loop
			insert into packs (action, job, first, count, bytes, low, high, chunks, heads, data, sum)
			values (j.action, j.n, p_firsts[i], p_counts[i], p_bytes[i], p_lows[i], p_highs[i], p_chunks[i], p_heads[i], p_datas[i], p_sums[i]);
			insert into spans (job, first, run, count, detail) values (j.n, p_firsts[i], j.run, p_counts[i], p_details[i])
			on conflict on constraint spans_pkey do update set count = excluded.count, chunks = null, detail = excluded.detail;
		end loop;
		if s.job is null then
			update jobs set late = late + 1 where n = j.n and cardinality(p_firsts) > 0;
			update events e set executed = e.executed + p_executed where p_executed > 0 and e.n = (
				select max(n) from events x where x.job = j.n and x.kind = 'lease_ended' and x.first = s.granted_first and x.worker = (select name from workers where id = p_worker));
		end if;
		for f in select * from jsonb_array_elements(p_failures) order by value->>'chunk' loop
			if (f->>'chunk')::bigint >= s.granted_first and (f->>'chunk')::bigint < s.granted_last then
				perform failed_attempt(j.n, (f->>'chunk')::bigint, f->>'class', decode(f->>'trap', 'hex'), f->'detail');
			end if;
		end loop;
		held := s;
		update slots x set seq = p_seq, done = greatest(x.done, least(p_done, x.last)), executed = x.executed + p_executed,
			job = case when not p_ends then x.job end, at = case when not p_ends then x.at end,
			until = case when not p_ends and x.job is not null then clock_timestamp() + w.lease_ms * interval '1 millisecond' end
		where x.worker = p_worker and x.slot = p_slot returning * into s;
		if p_ends and held.job is not null then
			if s.kind = 0 then
				if p_done < s.last then
					perform give_back(j.n, greatest(p_done, s.first), s.last, s.announced);
					update jobs set returned = returned + 1 where n = j.n;
				end if;
				insert into events (job, kind, first, last, worker, why, executed) values (j.n, 'lease_ended', s.first, s.last - 1, w.name,
					case when p_done >= s.last then p_why when j.state = 'cancelled' then 'cancelled' else 'returned' end, s.executed);
			end if;
		end if;
	end if;
	if p_next and verdict <> 'overlap' then
		g := grant_lease(w, s, p_slot, p_want, p_only);
		key := g.key;
		job := g.job;
		kind := g.kind;
		first := g.first;
		last := g.last;
		announced := g.announced;
		until := g.until;
		version := g.version;
	end if;
	if not was and verdict = 'done' then
		update workers x set chunks = x.chunks + p_executed, seconds = x.seconds + p_seconds, seen = clock_timestamp() where x.id = p_worker;
	end if;
end $$;

-- The packs that overlap a span of the slot's lease.
create function worker_overlaps(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_first bigint, p_last bigint)
returns table (id bigint, first bigint, count int, chunks bytea, heads bytea, data bytea, sum bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare s slots;
begin
	perform own_worker(p_worker, p_token);
	select * into s from slots x where x.worker = p_worker and x.slot = p_slot;
	if s.key is distinct from p_key or p_first < s.granted_first or p_last > s.granted_last then
		raise exception 'the lease is not the slot''s' using errcode = 'WJ002';
	end if;
	return query select p.id, p.first, p.count, p.chunks, p.heads, p.data, p.sum from packs p
		where p.job = s.granted_job and p.first < p_last and p.first > p_first - 65537 and p.first + p.count > p_first order by p.first, p.id;
end $$;

-- Removes a pack that does not match its checksum. The server computes the checksum itself.
create function drop_damaged(p_pack bigint) returns bool
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare p packs;
begin
	delete from packs where id = p_pack and (pack_sum(chunks, heads, data) <> sum or length(chunks) <> 32 * count) returning * into p;
	if not found then return false; end if;
	if p.job is not null then
		delete from spans s where s.job = p.job and not s.reused and s.first < p.first + p.count and s.first + s.count > p.first;
		perform give_back(p.job, p.first, p.first + p.count, false);
	end if;
	return true;
end $$;

-- Ends a job that cannot be completed, because its outputs conflict (the first is kept) or
-- its module cannot be made ready.
create function worker_break(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_by text, p_text text) returns void
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	if p_by not in ('conflict', 'init', 'module', 'fold') then raise exception 'invalid reason' using errcode = '22023'; end if;
	update jobs set conflicts = conflicts + (p_by = 'conflict')::int, stopping = true, error = left(p_text, 4000), broken_by = p_by
	where n = j and state in ('active', 'paused');
	delete from pending where job = j;
end $$;

create function worker_announce(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_chunk bigint) returns bool
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
begin
	perform own_worker(p_worker, p_token);
	update slots x set at = p_chunk, done = greatest(done, p_chunk) where x.worker = p_worker and x.slot = p_slot and x.key = p_key and x.job is not null and p_chunk >= x.first and p_chunk < x.last;
	return found;
end $$;

create function hints_size() returns bigint
language sql volatile as $$ select pg_relation_size('workers') + pg_relation_size('slots') + pg_relation_size('pending') $$;

-- Writes the tables of leases again if dead versions of rows make them large, and reports
-- whether it did. As long as a transaction of another session is open, the server removes no
-- version, and each lease reads all of them; TRUNCATE begins new files. The caller has no
-- locks, and takes none after this. If the tables are in use for long, as by a backup, leases
-- wait for lock_timeout, and compact tries again only after a while.
create function compact() returns bool
language plpgsql set search_path = @SCHEMA@, pg_temp set lock_timeout = '100ms' as $$
declare most bigint := 1048576; size bigint; w workers[]; s slots[]; p pending[];
begin
	if hints_size() < most or current_setting('transaction_isolation') <> 'read committed' or (select compact_after > now() from meta)
		or not pg_try_advisory_xact_lock(1464814596, 0) then return false; end if;
	size := hints_size();
	if size < most then return false; end if; -- another heartbeat was faster
	if size < 2048 * ((select count(*) from workers) + (select count(*) from slots) + (select count(*) from pending)) then -- most rows live
		update meta set compact_after = clock_timestamp() + size / most * interval '1 second';
		return false;
	end if;
	begin
		lock table workers, slots, pending in access exclusive mode;
		select array_agg(x) into w from workers x;
		select array_agg(x) into s from slots x;
		select array_agg(x) into p from pending x;
		truncate workers, slots, pending;
		insert into workers overriding system value select * from unnest(w);
		insert into slots select * from unnest(s);
		insert into pending overriding system value select * from unnest(p);
		return true;
	exception when others then
		update meta set compact_after = clock_timestamp() + interval '5 seconds';
		return false;
	end;
end $$;

-- Renews all leases of a worker, and returns for each the new end, or that it is over.
-- The worker loses leases that it does not name. A lease that is being settled is not over:
-- the settlement renews it. Rows are locked in the order of worker_settle: slots, jobs,
-- workers. After compact it takes no locks that others may hold: leases that are over end
-- with the next heartbeat.
create function worker_beat(p_worker bigint, p_token bytea, p_slots int[], p_keys bigint[], p_done bigint[])
returns table (slot int, key bigint, last bigint, goes bool)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare w workers; s slots; compacted bool;
begin
	perform set_config('synchronous_commit', 'off', true);
	perform own_worker(p_worker, p_token);
	compacted := compact();
	select * into w from workers where id = p_worker;
	return query with given as (select u.s, u.k, u.d from unnest(p_slots, p_keys, p_done) u(s, k, d)),
	live as (
		select x.slot, x.key, x.last, g.d from given g join slots x on x.worker = p_worker and x.slot = g.s and x.key = g.k join jobs j on j.n = x.job
		where j.state in ('active', 'paused') and not (j.stopping and x.kind = 0)),
	free as (select x.slot, x.key from slots x join live l on l.slot = x.slot and l.key = x.key where x.worker = p_worker for update of x skip locked),
	renewed as (
		update slots x set until = clock_timestamp() + w.lease_ms * interval '1 millisecond', done = greatest(x.done, least(l.d, x.last))
		from free f join live l on l.slot = f.slot
		where x.worker = p_worker and x.slot = f.slot and x.key = f.key and x.job is not null
		returning x.slot, x.key, x.last)
	select g.s, g.k, coalesce(r.last, l.last, 0), l.key is not null
	from given g left join live l on l.slot = g.s and l.key = g.k left join renewed r on r.slot = g.s and r.key = g.k;
	if not compacted then
		for s in select * from slots x where x.worker = p_worker and x.job is not null and x.since < now() - interval '5 seconds'
			and not exists (select from unnest(p_keys) k where k = x.key) for update skip locked
		loop
			perform release_slot(s, 'unnamed');
		end loop;
		perform expire(p_worker);
	end if;
	update workers set seen = clock_timestamp(), gone = false where id = p_worker;
end $$;

create function worker_leave(p_worker bigint, p_token bytea) returns void
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare s slots;
begin
	perform own_worker(p_worker, p_token);
	for s in select * from slots x where x.worker = p_worker for update loop
		perform release_slot(s, 'returned');
	end loop;
	update workers set gone = true, seen = clock_timestamp() where id = p_worker;
	delete from slots where worker = p_worker;
end $$;

-- The job of a lease that the worker holds or held last in the slot.
create function leased_job(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns int
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare s slots;
begin
	perform own_worker(p_worker, p_token);
	select * into s from slots x where x.worker = p_worker and x.slot = p_slot;
	if s.key is distinct from p_key or s.granted_job is null then
		raise exception 'the lease is not the slot''s' using errcode = 'WJ002';
	end if;
	return s.granted_job;
end $$;

create function worker_job(p_worker bigint, p_token bytea, p_slot int, p_key bigint)
returns table (id bytea, action bytea, input bytea, total bigint, spec text, run int)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare job int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	return query select j.id, a.digest, j.input, j.total, j.spec, j.run from jobs j join actions a on a.id = j.action where j.n = job;
end $$;

create function worker_ids(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_n int) returns bytea
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	return (select data from ids where ids.job = j and n = p_n);
end $$;

create function worker_file(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_role text, p_n int) returns table (digest bytea, data bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	return query select f.digest, b.data from files f left join blobs b on b.digest = f.digest where f.job = j and f.role = p_role and f.n = p_n;
end $$;

-- The segments that have chunks of p_first..p_last-1, within the lease of the slot.
create function worker_segments(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_first bigint, p_last bigint)
returns table (first bigint, count int, digest bytea, data bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key); s slots;
begin
	select * into s from slots x where x.worker = p_worker and x.slot = p_slot;
	if p_first < s.granted_first or p_last > s.granted_last then
		raise exception 'the input is not of the lease' using errcode = 'WJ002';
	end if;
	return query select g.first, g.count, g.digest, b.data from segments g left join blobs b on b.digest = g.digest
		where g.job = j and g.first < p_last and g.first + g.count > p_first and g.first >= coalesce((select max(h.first) from segments h where h.job = j and h.first <= p_first), 0)
		order by g.first limit 16;
end $$;

-- The records that the fold of a job reads and keeps: only for the slot that leases the fold.
create function fold_job(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns int
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	if not exists (select from slots x where x.worker = p_worker and x.slot = p_slot and x.kind = 1 and x.key = p_key) then
		raise exception 'the lease is not on the fold' using errcode = '42501';
	end if;
	return j;
end $$;

create function fold_actions(p_job int) returns int[]
language sql stable set search_path = @SCHEMA@, pg_temp as $$
	select array_agg(a.id) from jobs j join actions a on a.id = j.action or a.digest = any(j.derived) where j.n = p_job
$$;

create function worker_action(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_digest bytea) returns int
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := fold_job(p_worker, p_token, p_slot, p_key); found_id int;
begin
	if not exists (select from jobs x join actions a on a.id = x.action where x.n = j and (a.digest = p_digest or p_digest = any(x.derived))) then
		raise exception 'the action is not of the job' using errcode = '42501';
	end if;
	insert into actions (digest) values (p_digest) on conflict do nothing;
	select id into found_id from actions where digest = p_digest;
	return found_id;
end $$;

create function worker_index(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_action int, p_since text, p_known bigint[])
returns table (id bigint, low bytea, high bytea, chunks bytea, size int, horizon text)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := fold_job(p_worker, p_token, p_slot, p_key);
begin
	if not p_action = any(fold_actions(j)) then raise exception 'the action is not of the job' using errcode = '42501'; end if;
	return query select * from index_of(p_action, p_since, p_known);
end $$;

create function index_of(p_action int, p_since text, p_known bigint[])
returns table (id bigint, low bytea, high bytea, chunks bytea, size int, horizon text)
language sql stable set search_path = @SCHEMA@, pg_temp as $$
	select p.id, p.low, p.high, p.chunks, length(p.chunks) + length(p.heads) + length(p.data), pg_snapshot_xmin(pg_current_snapshot())::text from packs p
	where p.action = p_action and p.xid >= p_since::xid8 and not p.id = any(p_known)
	union all select 0, '', '', '', 0, pg_snapshot_xmin(pg_current_snapshot())::text
	order by 1
$$;

-- The outputs of a job's chunks from p_first to p_last-1, or only their sizes, in packs of
-- some MiB; the outputs that other jobs left and this one uses again are not in them.
create function outputs_of(p_job int, p_first bigint, p_last bigint, p_data bool)
returns table (id bigint, first bigint, count int, chunks_sum bytea, heads bytea, data bytea, data_sum bytea, sum bytea)
language sql stable set search_path = @SCHEMA@, pg_temp as $$
	select p.id, p.first, p.count, sha256(p.chunks), p.heads, case when p_data then p.data end, case when not p_data then sha256(p.data) end, p.sum from packs p join (
		select n.id, sum(length(n.heads) + case when p_data then length(n.data) else 0 end) over (order by n.first, n.id) - length(n.heads) - case when p_data then length(n.data) else 0 end before from (
			select * from packs q where q.job = p_job and q.first < p_last and q.first > p_first - 65537 and q.first + q.count > p_first order by q.first, q.id limit 32) n) s
	on s.id = p.id where s.before < 4194304 order by p.first, p.id
$$;

-- Whether packs of the job have the outputs of all its chunks.
create function whole(p_job int) returns bool
language sql stable set search_path = @SCHEMA@, pg_temp as $$
	select isempty(int8multirange(int8range(0, j.total)) - coalesce((select range_agg(int8range(p.first, p.first + p.count)) from packs p where p.job = p_job), '{}'))
	from jobs j where j.n = p_job
$$;

-- The job of a lease on its fold, or on calls of it.
create function folding_job(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns int
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j int := leased_job(p_worker, p_token, p_slot, p_key);
begin
	if not exists (select from slots x where x.worker = p_worker and x.slot = p_slot and x.kind in (1, 2) and x.key = p_key) then
		raise exception 'the lease is not on the fold' using errcode = '42501';
	end if;
	return j;
end $$;

create function worker_whole(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns bool
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
begin
	return whole(fold_job(p_worker, p_token, p_slot, p_key));
end $$;

create function worker_outputs(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_first bigint, p_last bigint, p_data bool)
returns table (id bigint, first bigint, count int, chunks_sum bytea, heads bytea, data bytea, data_sum bytea, sum bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
begin
	return query select * from outputs_of(folding_job(p_worker, p_token, p_slot, p_key), p_first, p_last, p_data);
end $$;

-- The calls p_first to p_last-1 of a level of the fold, -1 for the highest.
create function worker_calls(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_level int, p_first bigint, p_last bigint, p_output bool)
returns table (level int, n int, first bigint, last bigint, made bool, size bigint, output bytea, fuel bigint, outputs_fuel bigint, nodes bytea, sum bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare jn int := folding_job(p_worker, p_token, p_slot, p_key);
begin
	if p_level < 0 then p_level := (select max(f.level) from folds f where f.job = jn); end if;
	return query select f.level, f.n, f.first, f.last, f.output is not null, length(f.output)::bigint, case when p_output then f.output end, f.fuel, f.outputs_fuel, f.nodes, f.sum
		from folds f where f.job = jn and f.level = p_level and f.n >= p_first and f.n < p_last order by f.n;
end $$;

-- Makes the calls of a level of the fold, which workers then lease, and ends the lease.
create function worker_plan(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_level int, p_firsts bigint[], p_lasts bigint[]) returns void
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare jn int := fold_job(p_worker, p_token, p_slot, p_key);
begin
	insert into folds (job, level, n, first, last)
	select jn, p_level, u.n - 1, u.f, u.l from unnest(p_firsts, p_lasts) with ordinality u(f, l, n) on conflict do nothing;
	update slots x set job = null, until = null where x.worker = p_worker and x.slot = p_slot and x.key = p_key;
	perform notify_work();
end $$;

create function worker_unplan(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns void
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
begin
	delete from folds f where f.job = folding_job(p_worker, p_token, p_slot, p_key);
end $$;

-- Keeps the results of calls of the fold. The first result of a call is kept.
create function worker_called(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_level int,
	p_ns int[], p_outputs bytea[], p_fuels bigint[], p_outputs_fuels bigint[], p_nodes bytea[], p_sums bytea[], p_done int) returns void
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare jn int := folding_job(p_worker, p_token, p_slot, p_key);
begin
	update slots x set done = greatest(x.done, least(p_done, x.last)), until = clock_timestamp() + (select w.lease_ms from workers w where w.id = p_worker) * interval '1 millisecond'
	where x.worker = p_worker and x.slot = p_slot and x.key = p_key and x.job is not null and x.kind = 2
		and not exists (select from unnest(p_ns) n where n < x.granted_first or n >= x.granted_last);
	if not found then raise exception 'the lease is not the slot''s' using errcode = 'WJ002'; end if;
	update folds f set output = u.o, fuel = u.f, outputs_fuel = u.g, nodes = u.t, sum = u.s
	from unnest(p_ns, p_outputs, p_fuels, p_outputs_fuels, p_nodes, p_sums) u(n, o, f, g, t, s)
	where f.job = jn and f.level = p_level and f.n = u.n and f.output is null;
end $$;

create function worker_packs(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_ids bigint[])
returns table (id bigint, chunks bytea, heads bytea, data bytea, sum bytea)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := fold_job(p_worker, p_token, p_slot, p_key);
begin
	return query select p.id, p.chunks, p.heads, p.data, p.sum from packs p where p.id = any(p_ids) and p.action = any(fold_actions(j)) order by p.id;
end $$;

create function worker_keep(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_action int, p_count int, p_bytes bigint, p_low bytea, p_high bytea, p_chunks bytea, p_heads bytea, p_data bytea, p_sum bytea)
returns bigint
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := fold_job(p_worker, p_token, p_slot, p_key); made bigint;
begin
	if not p_action = any(fold_actions(j)) or p_action = (select action from jobs where n = j) then
		raise exception 'the action is not one that the fold keeps' using errcode = '42501';
	end if;
	perform pg_advisory_xact_lock(1464814592, p_action);
	insert into packs (action, count, bytes, low, high, chunks, heads, data, sum) values (p_action, p_count, p_bytes, p_low, p_high, p_chunks, p_heads, p_data, p_sum) returning id into made;
	return made;
end $$;

create function worker_failures(p_worker bigint, p_token bytea, p_slot int, p_key bigint) returns table (chunk bigint, class text, detail text)
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j int := fold_job(p_worker, p_token, p_slot, p_key);
begin
	return query select * from failures_of(j);
end $$;

create function failures_of(p_job int) returns table (chunk bigint, class text, detail text)
language sql stable set search_path = @SCHEMA@, pg_temp as $$
	select distinct on (a.chunk) a.chunk, a.class, a.detail from attempts a join histories h on h.job = a.job and h.chunk = a.chunk and h.failed
	where a.job = p_job and a.final order by a.chunk, a.n desc
$$;

-- Ends the job whose fold the slot leases. If outputs are missing, the job continues, and
-- the result is false.
create function worker_finish(p_worker bigint, p_token bytea, p_slot int, p_key bigint, p_state text, p_error text, p_report text) returns bool
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare jn int := fold_job(p_worker, p_token, p_slot, p_key); j jobs;
begin
	if p_state not in ('succeeded', 'incomplete', 'broken', 'again') then raise exception 'invalid state' using errcode = '22023'; end if;
	select * into j from jobs where n = jn for update;
	update slots x set job = null, until = null where x.worker = p_worker and x.slot = p_slot and x.key = p_key;
	if j.state <> 'active' then return j.state in ('succeeded', 'incomplete', 'broken'); end if;
	delete from folds where job = jn;
	if p_state = 'again' or not j.stopping and mend(jn) > 0 then return false; end if;
	if j.broken_by <> '' then
		p_state := 'broken';
		p_error := j.error;
	end if;
	update jobs set state = p_state, error = left(p_error, 4000), ended = clock_timestamp(),
		broken_by = case when p_state = 'broken' and broken_by = '' then 'fold' else broken_by end where n = jn;
	update runs set report = p_report, ended = clock_timestamp(), seen = clock_timestamp() where runs.job = jn and number = j.run;
	delete from pending where pending.job = jn;
	return true;
end $$;

-- For people and submitters ---------------------------------------------------------

create function notify_work() returns void
language sql set search_path = @SCHEMA@, pg_temp as $$ select pg_notify('@NAME@', '') $$;

create function set_state(p_id bytea, p_state text) returns text
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j jobs;
begin
	select * into j from jobs where id = p_id for update;
	if not found or j.state in ('', 'succeeded', 'incomplete', 'broken') or j.state = p_state then return j.state; end if;
	if p_state = 'paused' and j.state <> 'active' or p_state = 'active' and j.state = 'uploading' then return j.state; end if;
	update jobs set state = p_state, ended = case when p_state = 'cancelled' then clock_timestamp() end, stopping = false where n = j.n;
	if p_state = 'cancelled' then
		delete from pending where job = j.n;
		update runs set ended = clock_timestamp(), report = '{"state":"cancelled"}' where job = j.n and number = j.run and ended is null;
	elsif p_state = 'active' then
		if j.state = 'cancelled' then
			update runs set ended = null, report = null where job = j.n and number = j.run;
		end if;
		if j.state = 'cancelled' then perform spread(j.n); end if; -- the pending spans of a paused job are kept
		perform notify_work();
	end if;
	return p_state;
end $$;

create function set_job(p_id bytea, p_priority int, p_max int) returns text
language plpgsql security definer set search_path = @SCHEMA@, pg_temp as $$
declare j jobs;
begin
	update jobs set priority = coalesce(p_priority, priority), max_concurrency = coalesce(p_max, max_concurrency)
	where id = p_id and state in ('uploading', 'active', 'paused', 'cancelled') returning * into j;
	if not found then return (select state from jobs where id = p_id); end if;
	perform notify_work();
	return 'set';
end $$;

-- Makes a job active if its input is complete. It returns the state of the job.
create function activate(p_job int) returns text
language plpgsql set search_path = @SCHEMA@, pg_temp as $$
declare j jobs;
begin
	select * into j from jobs where n = p_job for update;
	if j.state = 'active' or j.state = 'paused' or j.state = 'succeeded' then return j.state; end if;
	if (select coalesce(sum(count), 0) from segments where job = p_job) <> j.total then
		raise exception 'the input of the job is not whole' using errcode = '22023';
	end if;
	if exists (select from segments g where g.job = p_job and not exists (select from blobs b where b.digest = g.digest))
		or exists (select from files f where f.job = p_job and not exists (select from blobs b where b.digest = f.digest)) then
		raise exception 'a part of the input of the job was deleted meanwhile: submit the job again' using errcode = '22023';
	end if;
	delete from histories where job = p_job;
	delete from folds where job = p_job;
	update jobs set state = 'active', stopping = false, error = '', broken_by = '', fold_losses = 0, ended = null, conflicts = 0 where n = p_job;
	perform spread(p_job);
	perform notify_work();
	return 'active';
end $$;

-- Views ------------------------------------------------------------------------------

create view jobs_v as select encode(j.id, 'hex') as id, j.name, case when j.state = '' then 'local' else j.state end as state, j.priority, j.max_concurrency, j.total,
	(select coalesce(sum(upper(r) - lower(r)), 0)::bigint from unnest((select range_agg(int8range(s.first, s.first + s.count)) from spans s where s.job = j.n)) r) as succeeded,
	(select count(*) from histories h where h.job = j.n and h.failed) as failed, j.created, j.ended from jobs j;

create view leases_v as select encode(j.id, 'hex') as job, s.first, s.last - 1 as last, w.name as worker, w.host, s.since, s.until as deadline
	from jobs j, lateral active_slots(j.n) s join workers w on w.id = s.worker where s.kind = 0;

create view workers_v as select w.name, w.app, w.host,
	case when w.gone or w.seen < now() - greatest(w.lease_ms, 2000) * interval '1 millisecond' then 'gone' when b.busy > 0 then 'busy' else 'idle' end as state,
	w.slots, b.busy::int as busy, w.seen, w.id, w.pid, w.chunks, w.lost, w.started, w.engine
	from workers w left join lateral (select count(*) busy from slots s where s.worker = w.id and s.job is not null and s.until > now()) b on true;

-- volatile: it and the next function have snapshots of their own, see Hints.
create function queued(out chunks bigint, out seconds float8, out slots bigint)
language sql volatile security definer set search_path = @SCHEMA@, pg_temp as $$
	with q as (
		select j.n, j.max_concurrency, coalesce((select sum(w.seconds) / nullif(sum(w.chunks), 0) from workers w), 1) each,
			-- A job without pending chunks and without leases waits for its fold.
			coalesce(p.spans, case when exists (select from slots s where s.job = j.n) then 0 else 1 end)
				+ (select count(*) from folds f where f.job = j.n and f.output is null) left_over
		from jobs j left join (select job, sum(last - first) spans from pending group by job) p on p.job = j.n where j.state = 'active')
	select coalesce(sum(left_over), 0)::bigint, coalesce(sum(left_over * each), 0)::float8,
		coalesce(sum(case when max_concurrency > 0 then least(max_concurrency, left_over) else left_over end), 0)::bigint from q
$$;

create function wanted_workers(seconds int) returns int
language sql volatile security definer set search_path = @SCHEMA@, pg_temp as $$
	select case when q.chunks = 0 and b.busy = 0 then 0 else greatest(1, b.busy, least(q.slots, ceil(q.seconds / greatest($1, 1))))::int end
	from queued() q, (select count(*)::int busy from slots s where s.job is not null and s.until > now()) b
$$;

create view scale_v as select coalesce(sum(w.busy), 0)::int as busy, coalesce(sum(w.slots - w.busy), 0)::int as idle,
	(select chunks from queued()) as queued_chunks, (select seconds from queued()) as queued_seconds, wanted_workers(60) as wanted_workers
	from workers_v w where w.state <> 'gone';

create function schema_version() returns int
language sql stable security definer set search_path = @SCHEMA@, pg_temp as $$ select version from meta $$;

create view schema_v as select version from meta;

revoke all on all tables in schema @SCHEMA@ from public;
revoke all on all sequences in schema @SCHEMA@ from public;
revoke all on all functions in schema @SCHEMA@ from public;
