import { CommandRegistry } from '@lumino/commands';
import { closeIcon, listIcon } from '@jupyterlab/ui-components';
import React, { useState } from 'react';

import { Problem } from '../api';
import { IconButton, Phase, Said, Section, Trouble, useSeen } from '../parts';
import { Job } from '../resources';
import { canBeCancelled, JobsModel, Scope } from './model';

export function JobsSection(props: {
  model: JobsModel;
  commands: CommandRegistry;
  said: Problem | null;
}): JSX.Element {
  const { model, commands } = props;
  const { value, problem } = useSeen(model.jobs);
  return (
    <Section
      title="Jobs"
      count={value?.items.length}
      grows={1}
      actions={<ScopeChoice model={model} />}
    >
      <Trouble problem={problem} said={props.said} />
      {value?.items.length === 0 && (
        <p className="tp-empty">
          No jobs yet. In a notebook, <code>torpor.submit(function)</code> runs a
          function with the packages that you have installed here.
        </p>
      )}
      <ul className="tp-jobs" aria-label="Jobs">
        {value?.items.map(job => (
          <JobRow key={job.id} job={job} commands={commands} />
        ))}
      </ul>
    </Section>
  );
}

function ScopeChoice(props: { model: JobsModel }): JSX.Element {
  const [scope, setScope] = useState<Scope>(props.model.scope);
  const choose = (event: React.ChangeEvent<HTMLSelectElement>) => {
    const chosen = event.target.value as Scope;
    props.model.scope = chosen;
    setScope(chosen);
  };
  return (
    <select
      className="tp-scope"
      aria-label="Which jobs"
      value={scope}
      onChange={choose}
    >
      <option value="workspace">This workspace</option>
      <option value="tenant">All of {props.model.tenant}</option>
    </select>
  );
}

function JobRow(props: { job: Job; commands: CommandRegistry }): JSX.Element {
  const { job, commands } = props;
  const { phase, message, next_step, notice, position, parts } = job.status;
  return (
    <li className="tp-job" data-job={job.id}>
      <div className="tp-job-head">
        <span className="tp-job-name" title={job.name}>
          {job.name}
        </span>
        <span className="tp-tag">{job.spec.kind}</span>
        <span className="tp-job-actions">
          {job.status.attempt > 0 && (
            <IconButton
              icon={listIcon}
              label={`Show the log of ${job.name}`}
              onClick={() => void commands.execute('torpor:job-log', args(job))}
            />
          )}
          {canBeCancelled(job) && (
            <IconButton
              icon={closeIcon}
              label={`Cancel ${job.name}`}
              onClick={() =>
                void commands.execute('torpor:cancel-job', args(job))
              }
            />
          )}
        </span>
      </div>
      <div className="tp-job-state">
        <Phase phase={phase} />
        {position !== null && <span className="tp-dim">position {position}</span>}
      </div>
      <Said message={message} nextStep={next_step} />
      {notice && <p className="tp-note">{notice}</p>}
      {parts.length > 0 && (
        <ul className="tp-parts">
          {parts.map(part => (
            <li key={part}>{part}</li>
          ))}
        </ul>
      )}
    </li>
  );
}

function args(job: Job): { id: string; name: string } {
  return { id: job.id, name: job.name };
}
