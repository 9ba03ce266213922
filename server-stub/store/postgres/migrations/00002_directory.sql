-- +goose Up
create table publications (key bytea primary key, value bytea not null);
create table directory    (key bytea primary key, value bytea not null);
