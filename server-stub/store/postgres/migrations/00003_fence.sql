-- +goose Up
-- What each server process has written so far: one that finds less here than it was told is on disk
-- knows that the database has lost something, or is another one.
create table fence (process bytea primary key, writes bigint not null, at timestamptz not null default now()) with (fillfactor = 50);
