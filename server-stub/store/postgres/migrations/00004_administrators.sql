-- +goose Up
create table administrators (key bytea primary key, value bytea not null);
