-- Changes the tables from before the first release to those of version 1, before the packs
-- are rewritten. All
-- functions and views are made again after that.
do $$
declare f text;
begin
	for f in select oid::regclass::text from pg_class where relnamespace = to_regnamespace('@SCHEMA@') and relkind = 'v' loop
		execute format('drop view if exists %s cascade', f);
	end loop;
	for f in select oid::regprocedure::text from pg_proc where pronamespace = to_regnamespace('@SCHEMA@') loop
		execute format('drop function if exists %s cascade', f);
	end loop;
end $$;

alter table meta add serving text not null default '', add since timestamptz not null default '-infinity', add compact_after timestamptz not null default '-infinity';
alter table packs add chunks bytea, add heads bytea;
alter table packs alter column heads set storage external, alter column chunks set storage external;
alter table jobs add fold_losses int not null default 0;
alter table spans alter column chunks drop not null;
create index spans_reused on spans (job, first) where reused;
create table folds (
	job int not null, level int not null, n int not null,
	first bigint not null, last bigint not null,
	output bytea, fuel bigint not null default 0, outputs_fuel bigint not null default 0, nodes bytea, sum bytea,
	alone bool not null default false, losses int not null default 0,
	primary key (job, level, n)
);
alter table folds alter column output set storage external;
alter table workers add schema int not null default 0;
delete from slots;
delete from pending; -- it is derived again from the outputs
