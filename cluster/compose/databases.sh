#!/bin/sh
# Runs once, when PostgreSQL's volume is empty: a role and a database each for MLflow and Optuna.
set -eu

psql --set=ON_ERROR_STOP=1 --dbname=postgres --quiet <<SQL
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv optuna_password OPTUNA_DB_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE optuna FROM PUBLIC;
SQL
