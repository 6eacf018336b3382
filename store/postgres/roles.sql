-- Four roles without a login. The roles of people and machines become members of them.
do $$
begin
	if not exists (select from pg_roles where rolname = 'wasm_jobs_admin') then create role wasm_jobs_admin nologin; end if;
	if not exists (select from pg_roles where rolname = 'wasm_jobs_submit') then create role wasm_jobs_submit nologin; end if;
	if not exists (select from pg_roles where rolname = 'wasm_jobs_worker') then create role wasm_jobs_worker nologin; end if;
	if not exists (select from pg_roles where rolname = 'wasm_jobs_read') then create role wasm_jobs_read nologin; end if;
end $$;

grant usage on schema @SCHEMA@ to wasm_jobs_admin, wasm_jobs_submit, wasm_jobs_worker, wasm_jobs_read;
grant execute on function schema_version() to wasm_jobs_admin, wasm_jobs_submit, wasm_jobs_worker, wasm_jobs_read;

-- Readers read the views, and the tables that the reading verbs need.
grant select on jobs_v, leases_v, workers_v, scale_v, schema_v to wasm_jobs_read, wasm_jobs_submit, wasm_jobs_admin;
grant execute on function wanted_workers(int), queued(), active_slots(int), failures_of(int), index_of(int, text, bigint[]), outputs_of(int, bigint, bigint, bool), whole(int)
	to wasm_jobs_read, wasm_jobs_submit, wasm_jobs_admin;
grant select on folds, actions, packs, jobs, ids, runs, spans, attempts, histories, blobs, segments, files, pending, events, meta
	to wasm_jobs_read, wasm_jobs_submit, wasm_jobs_admin;

-- Submitters submit, run and steer jobs.
grant insert, update, delete on folds, actions, packs, jobs, ids, runs, spans, attempts, histories, blobs, segments, files, pending, events to wasm_jobs_submit, wasm_jobs_admin;
grant usage on sequence begun to wasm_jobs_submit, wasm_jobs_admin;
grant execute on function set_state(bytea, text), set_job(bytea, int, int), activate(int), spread(int), uncovered(int, bigint, bigint), notify_work(), drop_damaged(bigint),
	give_back(int, bigint, bigint, bool), mend(int), tell(int, text, bigint, bigint, bigint, text, bigint) to wasm_jobs_submit, wasm_jobs_admin;

-- Administrators may do everything.
grant all on all tables in schema @SCHEMA@ to wasm_jobs_admin;
grant all on all sequences in schema @SCHEMA@ to wasm_jobs_admin;
grant execute on all functions in schema @SCHEMA@ to wasm_jobs_admin;

-- Workers call functions, which check that the worker holds the lease. They see no table.
do $$
declare f text;
begin
	for f in select p.oid::regprocedure::text from pg_proc p where p.pronamespace = to_regnamespace('@SCHEMA@') and p.proname like 'worker\_%' loop
		execute format('grant execute on function %s to wasm_jobs_worker', f);
	end loop;
end $$;
grant execute on function drop_damaged(bigint) to wasm_jobs_worker;
