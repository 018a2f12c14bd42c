"""One sweep as an Optuna study: what is drawn, judged and told."""
