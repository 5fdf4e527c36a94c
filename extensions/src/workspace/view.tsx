import { CommandRegistry } from '@lumino/commands';
import { closeIcon, launchIcon, stopIcon } from '@jupyterlab/ui-components';
import React, { useState } from 'react';

import { moonIcon } from '../icons';
import { IconButton, Phase, Said, Section, TextButton, Trouble, useSeen } from '../parts';
import { Workspace } from '../resources';
import { WorkspaceModel } from './model';

const READ = 'torpor:read-notice';

export function WorkspaceSection(props: {
  model: WorkspaceModel;
  commands: CommandRegistry;
}): JSX.Element {
  const { model, commands } = props;
  const { value, problem } = useSeen(model.workspace);
  const status = value?.status;
  return (
    <Section title="Workspace">
      <div className="tp-workspace">
        <div className="tp-workspace-head">
          <span className="tp-workspace-name" title={model.config.name}>
            {value?.name ?? model.config.name}
          </span>
          {status && <Phase phase={status.phase} old={problem !== null} />}
        </div>
        <dl className="tp-facts">
          <div>
            <dt>Tenant</dt>
            <dd>{value?.tenant ?? model.config.tenant}</dd>
          </div>
          {value && (
            <div>
              <dt>Profile</dt>
              <dd>{profileOf(value)}</dd>
            </div>
          )}
          {status?.node && (
            <div>
              <dt>Node</dt>
              <dd>{status.node}</dd>
            </div>
          )}
        </dl>
        <Trouble problem={problem} />
        <Said message={status?.message} nextStep={status?.next_step} />
        {status?.progress !== null && status?.progress !== undefined && (
          <progress
            className="tp-progress"
            max={100}
            value={status.progress}
            aria-label={status.message}
          />
        )}
        {status?.notice && (
          <Notice key={status.notice} text={status.notice} />
        )}
        {(status?.notes ?? []).map(note => (
          <p key={note} className="tp-note">
            {note}
          </p>
        ))}
        <div className="tp-buttons">
          <LeaveButton model={model} commands={commands} />
          <TextButton
            icon={launchIcon}
            label="Open page"
            title="Open the page of this workspace on the platform"
            onClick={() => void commands.execute('torpor:open-page')}
          />
        </div>
      </div>
    </Section>
  );
}

/** Sleep, stop or go on: what there is to do now. */
function LeaveButton(props: {
  model: WorkspaceModel;
  commands: CommandRegistry;
}): JSX.Element {
  const { model, commands } = props;
  const run = (command: string) => () => void commands.execute(command);
  if (model.may('cancel')) {
    return (
      <TextButton label="Keep working" onClick={run('torpor:keep-working')} />
    );
  }
  if (model.onlyStops) {
    return (
      <TextButton
        icon={stopIcon}
        label="Stop…"
        title="Give CPU and memory back; what you installed is discarded"
        onClick={run('torpor:stop')}
      />
    );
  }
  return (
    <TextButton
      icon={moonIcon}
      label="Sleep now…"
      title="Give CPU and memory back; what you installed is kept"
      disabled={!model.may('sleep')}
      onClick={run('torpor:sleep')}
    />
  );
}

function profileOf(workspace: Workspace): string {
  const gpus = workspace.status.amount?.gpu_count ?? 0;
  const said = gpus > 0 ? `, ${gpus} GPU${gpus === 1 ? '' : 's'}` : '';
  return workspace.spec.profile + said;
}

/** What the platform tells once, until the reader has put it away. */
function Notice(props: { text: string }): JSX.Element | null {
  const [read, setRead] = useState(
    () => window.localStorage.getItem(READ) === props.text
  );
  const putAway = () => {
    window.localStorage.setItem(READ, props.text);
    setRead(true);
  };
  return read ? null : (
    <div className="tp-notice" role="note">
      <p>{props.text}</p>
      <IconButton icon={closeIcon} label="Put away" onClick={putAway} />
    </div>
  );
}
