-- +goose Up
-- One table for each bucket of the record: an ordered map of keys to values.
create table meta         (key bytea primary key, value bytea not null);
create table tokens       (key bytea primary key, value bytea not null);
create table joins        (key bytea primary key, value bytea not null);
create table devices      (key bytea primary key, value bytea not null);
-- Last reports change again and again: room for a new version on the same page.
create table statuses     (key bytea primary key, value bytea not null) with (fillfactor = 70);
create table certificates (key bytea primary key, value bytea not null);
create table enrollments  (key bytea primary key, value bytea not null);
create table keys         (key bytea primary key, value bytea not null);
create table marks        (key bytea primary key, value bytea not null);
create table pending      (key bytea primary key, value bytea not null);
create table ready        (key bytea primary key, value bytea not null);
create table orders       (key bytea primary key, value bytea not null);
create table events       (key bytea primary key, value bytea not null);
create table reminders    (key bytea primary key, value bytea not null);
create table challenges   (key bytea primary key, value bytea not null);
create table mailboxes    (key bytea primary key, value bytea not null);
create table proofs       (key bytea primary key, value bytea not null);
create table forwards     (key bytea primary key, value bytea not null);
-- Another room for new versions: a line for each device, which changes with its reports.
create table roster       (key bytea primary key, value bytea not null) with (fillfactor = 70);
